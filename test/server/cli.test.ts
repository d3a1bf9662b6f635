/**
 * The command line without processes: its reference page, its exit codes, its progress.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { runCli } from "../../src/cli/main.ts";
import { exitCodeOf } from "../../src/cli/exit-code.ts";
import { describeProgress, openProgressView } from "../../src/cli/progress-view.ts";
import { renderCliReference } from "../../src/cli/reference.ts";
import { renderTable } from "../../src/cli/table.ts";
import type { Terminal } from "../../src/cli/terminal.ts";
import type { ErrorKind } from "../../src/base/error.ts";
import type { OperationProgress } from "../../src/cluster/operations.ts";

const MIB = 1024 * 1024;

function captured(): { terminal: Terminal; out: string[]; err: string[] } {
  const out: string[] = [];
  const err: string[] = [];
  const terminal: Terminal = {
    print: (text) => void out.push(text),
    say: (text) => void err.push(text),
    isLive: false,
    canAsk: false,
    ask: () => Promise.resolve(false),
  };
  return { terminal, out, err };
}

const progress = (change: Partial<OperationProgress>): OperationProgress => ({
  phase: "store",
  files: 0,
  bytes: 0,
  readBytes: 0,
  newBytes: 0,
  storedBytes: 0,
  handled: 0,
  failed: 0,
  total: 0,
  nodes: {},
  ...change,
});

test("docs/cli.md is what the program says", () => {
  // If this fails: bun scripts/generate-cli-reference.ts
  expect(readFileSync("docs/cli.md", "utf8")).toBe(renderCliReference());
});

describe("a command line", () => {
  test("that is wrong ends with 2, and help and version with 0", async () => {
    const codes: Record<string, number> = {};
    for (const line of ["--help", "--version", "nonsense", "backup --nmae x", "show", "cancel"]) {
      codes[line] = await runCli(line.split(" "), captured().terminal);
    }
    expect(codes).toEqual({
      "--help": 0,
      "--version": 0,
      nonsense: 2,
      "backup --nmae x": 2,
      show: 2,
      cancel: 2,
    });
  });

  for (const line of [
    "cleanup --keep-days many",
    "server",
    "config check",
    "site init",
    "restore --to somewhere",
    "restore --node a=b=c",
    "list -u nonsense",
    "delete",
    "verify --deep --database",
    "verify --database -c astacus.conf",
  ]) {
    test(`\`${line}\` is wrong usage, and says what is meant`, async () => {
      const { terminal, err } = captured();
      expect(await runCli(line.split(" "), terminal)).toBe(2);
      expect(err.join("\n")).not.toBe("");
      expect(err.join("\n")).not.toContain("defect");
    });
  }

  test("prints an error as JSON on stdout where JSON was asked for", async () => {
    const { terminal, out } = captured();
    await runCli(["site", "init", "--json"], terminal);
    expect(JSON.parse(out.join(""))).toMatchObject({ error: { kind: "usage" } });
  });
});

test("each kind of error has the exit code of the documentation", () => {
  const codeOf = (kind: ErrorKind, context: Record<string, string | number> = {}): number =>
    exitCodeOf({ kind, context });
  expect(codeOf("usage")).toBe(2);
  expect(codeOf("config")).toBe(2);
  expect(codeOf("unavailable")).toBe(1);
  expect(codeOf("unavailable", { reason: "server-unreachable" })).toBe(3);
  expect(codeOf("unavailable", { reason: "not-ready" })).toBe(3);
  expect(codeOf("permission")).toBe(1);
  expect(codeOf("permission", { status: 401 })).toBe(4);
  expect(codeOf("refused")).toBe(4);
  expect(codeOf("incomplete")).toBe(5);
  expect(codeOf("cancelled")).toBe(130);
  for (const kind of ["damaged", "no-space", "internal", "not-found", "conflict"] as const) {
    expect(codeOf(kind)).toBe(1);
  }
});

describe("progress", () => {
  test("shows bytes, files, rate and the time that is left", () => {
    const half = { bytes: 50 * MIB, bytesTotal: 100 * MIB, files: 1234, storedBytes: MIB };
    expect(describeProgress(half, 5000)).toBe(
      "50 MiB of 100 MiB, 1,234 files, 1 MiB sent, 10 MiB/s, 5s left",
    );
  });

  test("without a total shows no time that nobody can know", () => {
    const some = { bytes: 50 * MIB, files: 1, storedBytes: 0 };
    expect(describeProgress(some, 5000)).toBe("50 MiB, 1 files, 10 MiB/s");
  });

  test("on plain lines says each phase once, and then only in a while", async () => {
    const { terminal, err } = captured();
    let nowMs = 0;
    const view = await openProgressView(terminal, () => nowMs);
    view.show(progress({ phase: "starting" }));
    for (let second = 0; second < 25; second += 1) {
      nowMs = second * 1000;
      view.show(progress({ phase: "store", files: second, bytes: second * MIB }));
    }
    view.show(progress({ phase: "commit" }));
    view.say("a message");
    view.close();
    expect(err.map((line) => line.split(":")[0])).toEqual([
      "store",
      "store",
      "store",
      "commit",
      "a message",
    ]);
  });
});

test("tables align what people see, not what strings count", () => {
  const columns = [{ title: "NAME" }, { title: "N", isNumber: true }, { title: "END" }];
  const text = renderTable(columns, [
    ["日本", "1", "x"],
    ["long name", "1,000", "y"],
  ]);
  expect(text).toBe("NAME           N  END\n日本           1  x\nlong name  1,000  y");
});
