/** What the log says of sites: roles, the end of a log, and objects that were repaired. */
import { describe, expect, test } from "bun:test";
import { decodeCheckpoint, encodeCheckpoint } from "../../src/cas/log/checkpoint.ts";
import { encodeEntry } from "../../src/cas/log/entry.ts";
import type { EntryDraft } from "../../src/cas/log/entry.ts";
import { decompressAtMost } from "../../src/cas/format/zstd.ts";
import { birthOfPack, isDeletedPack } from "../../src/cas/log/state.ts";
import type { RepositoryState } from "../../src/cas/log/state.ts";
import { backupBody, hashOf, idOf, LogBuilder, nextEntry, segment } from "./log-builder.ts";

const forget = (name: string): EntryDraft => ({
  kind: "forget",
  body: { backups: [idOf(name)], reason: "", scope: "site" },
});
const retire = (...packs: string[]): EntryDraft => ({
  kind: "retire",
  body: { packs: packs.map(hashOf) },
});
const remove = (packs: string[], backups: string[], floor: number): EntryDraft => ({
  kind: "delete",
  body: { packs: packs.map(hashOf), backups: backups.map(idOf), floor },
});
const backup = (name: string, birth: number, rest = {}): EntryDraft => ({
  kind: "backup",
  body: backupBody(name, birth, rest),
});

describe("roles", () => {
  const role = (epoch: number, primary: string, ...sites: string[]): EntryDraft => ({
    kind: "role",
    body: {
      epoch,
      primary: idOf(primary),
      sites: sites.map((name) => ({
        site: idOf(name),
        name,
        location: `/${name}`,
        role: name === primary ? "primary" : "mirror",
      })),
      reason: "",
    },
  });
  const [low, high] = ["a", "b"].toSorted((one, other) => (idOf(one) < idOf(other) ? -1 : 1));

  test("hold by the highest epoch, then by the smaller primary, whatever came last", () => {
    const log = new LogBuilder();
    expect(log.state.roles).toBeUndefined();
    expect(log.push(role(2, high!, "a", "b"))).toBeUndefined();
    expect(log.push(role(1, low!, "a", "b"))).toContain("not above");
    expect(log.push(role(2, high!, "a", "b"))).toContain("not above");
    expect(log.push(role(2, low!, "a", "b"))).toBeUndefined();
    expect(log.push(role(2, high!, "a", "b"))).toContain("not above");
    expect(log.push(role(3, high!, "a", "b"))).toBeUndefined();
    expect(log.state.roles).toMatchObject({ epoch: 3, primary: idOf(high!), sequence: 7 });
    expect(throughCheckpoint(log.state)).toEqual(log.state);
  });

  test("are void whose primary is not among the sites as such", () => {
    const log = new LogBuilder();
    expect(log.push(role(1, "c", "a", "b"))).toContain("is not among its sites");
    const sites = [{ site: idOf("a"), name: "a", location: "/a", role: "mirror" as const }];
    const body = { epoch: 1, primary: idOf("a"), sites, reason: "" };
    expect(log.push({ kind: "role", body })).toContain("is not among its sites");
  });
});

test("after closed nothing counts, not even a note, a role, or a kind that nobody knows", () => {
  const log = new LogBuilder();
  log.push(backup("a", 1));
  const closed = { kind: "closed", body: { successor: idOf("b"), reason: "r" } } as const;
  expect(log.push(closed)).toBeUndefined();
  const before = log.state;
  expect(before.closed).toMatchObject({ successor: idOf("b"), sequence: 3 });
  expect(log.push({ kind: "note", body: { text: "" } })).toContain("closed the log");
  expect(log.push(closed)).toContain("closed the log");
  expect(log.push(forget("a"))).toContain("closed the log");
  expect(log.pushBytes(unknownEntry(log.state, { critical: true }))).toContain("closed the log");
  const { sequence, entryHash: hash } = log.state;
  expect(log.state).toEqual({ ...before, sequence, entryHash: hash });
  expect(throughCheckpoint(log.state)).toEqual(log.state);
});

test("a checkpoint says nothing of sites where no entry did, as those before these kinds", () => {
  const log = new LogBuilder();
  log.push(backup("a", 1));
  const { state } = JSON.parse(
    new TextDecoder().decode(decompressAtMost(encodeCheckpoint(log.state).bytes, 1e6, "it")),
  ) as { state: Record<string, unknown> };
  expect(Object.keys(state).filter((key) => key === "roles" || key === "closed")).toEqual([]);
  expect(state["births"]).toEqual([]);
  expect(throughCheckpoint(log.state)).toEqual(log.state);
});

describe("repair", () => {
  const repair = (
    kind: "pack" | "index" | "manifest",
    name: string,
    birth: number,
  ): EntryDraft => ({
    kind: "repair",
    body: { objects: [{ kind, id: hashOf(name), birth }] },
  });

  test("brings a segment, a manifest and a pack under another birth", () => {
    const log = new LogBuilder();
    log.push(backup("a", 1, { segments: [segment("s", 1), segment("t", 1)] }));
    expect(log.push(repair("index", "s", 2))).toBeUndefined();
    expect(log.push(repair("manifest", "manifest a", 3))).toBeUndefined();
    expect(log.push(repair("pack", "p", 4))).toBeUndefined();
    const { state } = log;
    expect([...state.segments.values()].map(({ birth }) => birth)).toEqual([2, 1]);
    expect(state.backups.get(idOf("a"))?.manifest.birth).toBe(3);
    expect(birthOfPack(state, hashOf("p"), 1)).toBe(4);
    expect(birthOfPack(state, hashOf("q"), 1)).toBe(1);
    expect(throughCheckpoint(state)).toEqual(state);
  });

  test("of what is not here, or under a birth that may have been removed, is void", () => {
    const log = new LogBuilder();
    log.push(backup("a", 1, { segments: [segment("s", 1)] }));
    expect(log.push(repair("index", "t", 2))).toContain("is not here");
    expect(log.push(repair("manifest", "manifest b", 2))).toBeDefined();
    log.push(remove([], [], 3));
    expect(log.push(repair("pack", "p", 3))).toContain("at or below the floor");
    expect(log.push(repair("pack", "p", 99))).toContain("not below its own sequence");
    expect(log.push(repair("index", "s", 4), { births: null })).toContain("carries no births");
  });

  test("of a pack ends with its delete: what is sent again lies where its segment says", () => {
    const log = new LogBuilder();
    log.push(repair("pack", "p", 1));
    log.push(retire("p"));
    log.push(remove(["p"], [], 3));
    expect(log.state.repairs.size).toBe(0);
    expect(isDeletedPack(log.state, hashOf("p"), 1)).toBe(true);
    expect(birthOfPack(log.state, hashOf("p"), 4)).toBe(4);
  });
});

describe("a forget", () => {
  const carried = (name: string, sequence: number, scope: "site" | "all" = "all"): EntryDraft => ({
    kind: "forget",
    body: { backups: [idOf(name)], reason: "", scope, origin: { site: idOf("p"), sequence } },
  });

  test("is known by its first entry; what undid it or stands above it remembers that", () => {
    const log = new LogBuilder();
    log.push(backup("a", 1));
    const own = { site: idOf("site"), sequence: 3 };
    log.push(forget("a"));
    expect(log.state.backups.get(idOf("a"))?.forgotten?.origin).toEqual(own);
    log.push({ kind: "undo", body: { backup: idOf("a"), forget: 3, revived: [] } });
    expect(log.push(carried("a", 9))).toBeUndefined();
    expect(log.state.backups.get(idOf("a"))?.undone).toEqual([own]);
    log.push(backup("a", 4, { overrides: { site: idOf("site"), sequence: 5 } }));
    const undone = [own, { site: idOf("p"), sequence: 9 }];
    expect(log.state.backups.get(idOf("a"))).toMatchObject({ undone });
    expect(throughCheckpoint(log.state)).toEqual(log.state);
  });

  test("for all outlives the record, until the backup is listed again", () => {
    const log = new LogBuilder();
    log.push(backup("a", 1));
    log.push(backup("b", 1));
    log.push(carried("a", 9));
    log.push(forget("b"));
    log.push(remove([], ["a", "b"], 4));
    const origin = { site: idOf("p"), sequence: 9 };
    expect([...log.state.buried]).toEqual([[idOf("a"), origin]]);
    expect(throughCheckpoint(log.state)).toEqual(log.state);
    log.push(backup("a", 6, { overrides: { site: idOf("site"), sequence: 6 } }));
    expect(log.state.buried.size).toBe(0);
    expect(log.state.backups.get(idOf("a"))?.undone).toEqual([origin]);
  });

  test("of what was never here counts if it is carried, for all: then the id is taken", () => {
    const log = new LogBuilder();
    expect(log.push(carried("a", 9, "site"))).toContain("is not listed");
    expect(log.push(carried("a", 9))).toBeUndefined();
    expect(log.push(carried("a", 9))).toContain("is not listed");
    expect(log.state.buried.has(idOf("a"))).toBe(true);
    expect(log.push(backup("a", 2))).toContain("this log has had backup");
  });
});

function throughCheckpoint(state: RepositoryState): RepositoryState {
  const { bytes, hash } = encodeCheckpoint(state);
  return decodeCheckpoint(bytes, { sequence: state.sequence, hash });
}

function unknownEntry(state: RepositoryState, rest: { critical: boolean }): Uint8Array {
  const known = encodeEntry(nextEntry(state, { kind: "note", body: { text: "" } }));
  const value = { ...JSON.parse(new TextDecoder().decode(known)), kind: "ship", body: {}, ...rest };
  return new TextEncoder().encode(JSON.stringify(value));
}
