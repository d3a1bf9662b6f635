/**
 * Finding a backup by what people type.
 */
import { expect, test } from "bun:test";
import { findBackup } from "../../src/cas/log/find-backup.ts";
import type { BackupRecord, RepositoryState } from "../../src/cas/log/state.ts";

test("nothing means the newest complete one of the cluster", () => {
  const state = stateOf(
    row("1", "one", {}),
    row("2", "two", {}),
    row("3", "three", { complete: false }),
    row("4", "four", { cluster: "other" }),
  );
  expect(findBackup(state, undefined, "c").name).toBe("two");
  expect(findBackup(state, "", "other").name).toBe("four");
  expect(findBackup(state, "latest", "c").name).toBe("two");
});

test("without a complete one, nothing finds nothing and says what to do", () => {
  const state = stateOf(row("1", "one", { complete: false }));
  expect(() => findBackup(state, undefined, "c")).toThrow("There is no complete backup yet.");
});

test("a name, a name as the original wrote it, an id and the beginning of an id find one", () => {
  const state = stateOf(row("abcdef12", "2026-11-22T18:00:00Z", {}), row("2", "two", {}));
  const id = "abcdef12".padEnd(32, "0");
  for (const wanted of ["2026-11-22T18:00:00Z", "backup-2026-11-22T18:00:00Z", id, "abcdef"]) {
    expect(findBackup(state, wanted, "c").backup).toBe(id);
  }
});

test("too short a beginning of an id finds nothing", () => {
  const state = stateOf(row("abcdef12", "one", {}));
  expect(() => findBackup(state, "abcde", "c")).toThrow("There is no backup abcde.");
});

test("a name that fits several is refused with their ids", () => {
  const state = stateOf(row("abc", "same", {}), row("def", "same", {}));
  expect(() => findBackup(state, "same", "c")).toThrow("2 backups are called same.");
});

test("a forgotten backup is found only by who asks for forgotten ones", () => {
  const forgotten = {
    sequence: 9,
    time: "t",
    reason: "r",
    scope: "all" as const,
    origin: { site: "s", sequence: 9 },
  };
  const state = stateOf(row("abcdef", "gone", { forgotten }), row("fedcba", "gone", {}));
  expect(findBackup(state, "gone", "c").backup.slice(0, 6)).toBe("fedcba");
  expect(() => findBackup(state, "abcdef", "c")).toThrow("There is no backup abcdef.");
  expect(findBackup(state, "abcdef", "c", { forgotten: true }).name).toBe("gone");
});

let sequence = 0;

function row(id: string, name: string, change: Partial<BackupRecord>): BackupRecord {
  sequence += 1;
  const backup = id.padEnd(32, "0");
  return { backup, name, cluster: "c", complete: true, sequence, ...change } as BackupRecord;
}

function stateOf(...rows: BackupRecord[]): RepositoryState {
  const backups = new Map(rows.map((one) => [one.backup, one]));
  return { backups } as unknown as RepositoryState;
}
