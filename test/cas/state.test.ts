/** The state machine: every void rule, what each kind does, and one history for all replayers. */
import { FORMAT_VERSION } from "../../src/cas/format/header.ts";
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AppError } from "../../src/base/error.ts";
import { decodeCheckpoint, encodeCheckpoint } from "../../src/cas/log/checkpoint.ts";
import { decodeEntry, encodeEntry, entryHash } from "../../src/cas/log/entry.ts";
import type { EntryDraft } from "../../src/cas/log/entry.ts";
import { applyEntry, Replay } from "../../src/cas/log/replay.ts";
import { isDeletedPack, isPinned, listedBackups, newestComplete } from "../../src/cas/log/state.ts";
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
const merge = (inputs: string[], output: [string, number] | null, dropped: string[] = []) =>
  ({
    kind: "merge",
    body: {
      inputs: inputs.map(hashOf),
      output: output === null ? null : segment(...output),
      dropped: dropped.map(hashOf),
    },
  }) satisfies EntryDraft;

describe("the chain", () => {
  test("broken by another hash is damage, not a void entry", () => {
    const log = new LogBuilder();
    const entry = nextEntry(log.state, { kind: "note", body: { text: "" } });
    const forged = { ...entry, previous: hashOf("other") };
    expect(kindOf(() => applyEntry(log.state, forged, hashOf("x")))).toBe("damaged");
  });

  test("must begin with the hash of the header", () => {
    const log = new LogBuilder();
    const [start] = log.states;
    const note = nextEntry(start!, { kind: "note", body: { text: "", header: hashOf("other") } });
    expect(kindOf(() => applyEntry(start!, note, hashOf("x")))).toBe("damaged");
    const other = nextEntry(start!, retire());
    expect(kindOf(() => applyEntry(start!, other, hashOf("x")))).toBe("damaged");
  });

  test("moves on over a void entry, which changes nothing else", () => {
    const log = new LogBuilder();
    const before = log.state;
    const checkpoint = { sequence: 1, hash: hashOf("checkpoint") };
    expect(log.push(forget("nothing"), { checkpoint })).toContain("is not listed");
    const { sequence, entryHash: hash } = log.state;
    expect({ sequence, hash }).toEqual({ sequence: 2, hash: entryHash(log.entries[1]!) });
    expect(log.state).toEqual({ ...before, sequence, entryHash: hash });
  });
});

describe("void for all alike is", () => {
  test("an entry that newly names a birth at or below the floor", () => {
    const log = new LogBuilder();
    log.padTo(5);
    log.push(remove([], [], 4));
    expect(log.push(backup("a", 4))).toContain("at or below the floor");
    expect(log.push(backup("a", 5))).toBeUndefined();
    expect(log.push({ kind: "keep", body: { segments: [segment("s", 3)] } })).toContain("floor");
  });

  test("an entry whose births tell of an older pack than its segments do", () => {
    const log = new LogBuilder();
    log.padTo(5);
    log.push(remove([], [], 4));
    const keep: EntryDraft = { kind: "keep", body: { segments: [segment("s", 6)] } };
    expect(log.push(keep, { births: [4, 6] })).toContain("at or below the floor");
    expect(log.push(keep, { births: [5, 6] })).toBeUndefined();
  });

  test("an entry that names a birth not below its own sequence", () => {
    const log = new LogBuilder();
    log.padTo(5);
    expect(log.push(backup("a", 6))).toContain("not below its own sequence");
    expect(log.push(backup("a", 6))).toBeUndefined();
  });

  test("an entry whose births disagree with its body", () => {
    const log = new LogBuilder();
    log.padTo(9);
    expect(log.push(backup("a", 5), { births: [6, 7] })).toContain("disagree");
    expect(log.push(backup("a", 5), { births: [3, 4] })).toContain("disagree");
    expect(log.push(backup("a", 5), { births: null })).toContain("carries no births");
    expect(log.push(retire("p"), { births: [5, 5] })).toContain("names nothing new");
  });

  test("a delete whose floor falls, passes the entry before it, or is below a manifest", () => {
    const log = new LogBuilder();
    log.padTo(5);
    log.push(backup("a", 5));
    log.push(forget("a"));
    expect(log.push(remove([], ["a"], 4))).toContain("below the manifest");
    expect(log.push(remove([], [], 9))).toContain("passes");
    expect(log.push(remove([], ["a"], 5))).toBeUndefined();
    expect(log.push(remove([], [], 4))).toContain("below the former one");
    expect(log.push(remove([], [], 5))).toBeUndefined();
    expect(log.push(remove([], [], log.state.sequence))).toBeUndefined();
  });

  test("a merge of what is not current, or of what a keep names", () => {
    const log = new LogBuilder();
    const operation = idOf("operation");
    log.push({ kind: "keep", body: { segments: [segment("s", 1)] } }, { operation });
    expect(log.push(merge(["t"], ["out", 1]))).toContain("is not current");
    expect(log.push(merge(["s"], ["out", 1]))).toContain("a keep names");
    log.push({ kind: "drop", body: { keeps: [operation], pins: [] } });
    expect(log.push(merge(["s"], ["out", 1]))).toBeUndefined();
    expect(log.push(merge(["s"], null))).toContain("is not current");
    expect([...log.state.segments.keys()]).toEqual([hashOf("out")]);
  });

  test("a forget of what is not listed, and an undo of another forget", () => {
    const log = new LogBuilder();
    log.push(backup("a", 1));
    const undo = (sequence: number): EntryDraft => ({
      kind: "undo",
      body: { backup: idOf("a"), forget: sequence, revived: [] },
    });
    expect(log.push(undo(2))).toContain("is not forgotten");
    log.push(forget("a"));
    const { sequence } = log.state;
    expect(log.push(forget("a"))).toContain("is not listed");
    expect(log.push(undo(sequence - 1))).toContain("is not forgotten");
    expect(log.push(undo(sequence))).toBeUndefined();
    expect(listedBackups(log.state).map(({ name }) => name)).toEqual(["a"]);
  });

  test("a pin of a backup that left, though not of a forgotten one", () => {
    const log = new LogBuilder();
    log.push(backup("a", 1));
    log.push(forget("a"));
    const pin: EntryDraft = { kind: "pin", body: { pin: "p", backup: idOf("a"), reason: "" } };
    expect(log.push(pin)).toBeUndefined();
    expect(isPinned(log.state, idOf("a"))).toBe(true);
    log.push({ kind: "drop", body: { keeps: [], pins: ["p"] } });
    log.push(remove([], ["a"], 1));
    expect(log.push(pin)).toContain("is not here");
  });

  test("a delete of a listed or pinned backup, or of a pack that is not retired", () => {
    const log = new LogBuilder();
    log.push(backup("a", 1));
    expect(log.push(remove([], ["a"], 1))).toContain("is not forgotten");
    expect(log.push(remove(["p"], [], 1))).toContain("is not retired");
    log.push(forget("a"));
    log.push({ kind: "pin", body: { pin: "p", backup: idOf("a"), reason: "" } });
    expect(log.push(remove([], ["a"], 1))).toContain("is pinned");
  });

  test("a repack into a segment that is current already", () => {
    const log = new LogBuilder();
    log.push({ kind: "keep", body: { segments: [segment("s", 1)] } });
    const repack: EntryDraft = {
      kind: "repack",
      body: { from: [], to: [], segments: [segment("s", 1)] },
    };
    expect(log.push(repack)).toContain("is current already");
  });

  test("a backup id that the log has had, unless it names the forget that it overrides", () => {
    const log = new LogBuilder();
    const again = (site: string, sequence: number): EntryDraft =>
      backup("a", log.state.sequence, { overrides: { site: idOf(site), sequence } });
    log.push(backup("a", 1));
    expect(log.push(again("site", 2))).toContain("lists it");
    log.push(forget("a"));
    const { sequence } = log.state;
    expect(log.push(backup("a", sequence))).toContain("names no forget");
    expect(log.push(again("site", sequence - 1))).toContain("forgotten by entry");
    expect(log.push(again("site", sequence))).toBeUndefined();
    log.push(forget("a"));
    expect(log.push(again("elsewhere", 99))).toBeUndefined();
    log.push(forget("a"));
    log.push(remove([], ["a"], log.state.sequence));
    expect(log.push(backup("a", log.state.sequence))).toContain("names no forget");
  });
});

describe("an entry", () => {
  test("keep protects segments until its operation's backup", () => {
    const log = new LogBuilder();
    const operation = idOf("operation");
    log.push({ kind: "keep", body: { segments: [segment("s", 1)] } }, { operation });
    log.push({ kind: "keep", body: { segments: [segment("t", 2)] } }, { operation });
    expect(log.state.keeps.get(operation)?.segments).toEqual([hashOf("s"), hashOf("t")]);
    log.push(backup("other", 1));
    expect(log.state.keeps.size).toBe(1);
    // A segment that is current is not newly named: its birth may lie below the floor.
    log.push(remove([], [], 3));
    expect(
      log.push(backup("a", 4, { segments: [segment("s", 1)] }), { operation }),
    ).toBeUndefined();
    expect(log.state.keeps.size).toBe(0);
  });

  test("backup takes what it revives out of retired", () => {
    const log = new LogBuilder();
    log.push(retire("p", "q"));
    log.push(backup("a", 1, { revived: [hashOf("p")] }));
    expect([...log.state.retired.keys()]).toEqual([hashOf("q")]);
  });

  test("delete keeps a pack known as deleted until a merge drops it, across checkpoints", () => {
    const log = new LogBuilder();
    log.push({ kind: "keep", body: { segments: [segment("s", 1)] } });
    log.push({ kind: "drop", body: { keeps: [idOf("operation 2")], pins: [] } });
    log.push(retire("p"));
    log.push(remove(["p"], [], 1));
    expect(isDeletedPack(throughCheckpoint(log.state), hashOf("p"), 1)).toBe(true);
    log.push(merge(["s"], ["out", 2], ["p"]));
    expect(log.state.deleted.size).toBe(0);
  });

  test("delete does not reach a copy of the pack that was born above its floor", () => {
    const log = new LogBuilder();
    log.padTo(5);
    log.push(retire("p"));
    log.push(remove(["p"], [], 3));
    const births = [1, 3, 4].map((birth) => isDeletedPack(log.state, hashOf("p"), birth));
    expect(births).toEqual([true, true, false]);
    log.padTo(20);
    log.push(remove([], [], 19));
    expect(isDeletedPack(log.state, hashOf("p"), 4)).toBe(false);
  });

  test("repack speaks for the lists of backups listed or pinned at that moment only", () => {
    const log = new LogBuilder();
    log.push(backup("forgotten", 1));
    log.push(backup("pinned", 1));
    log.push(backup("listed", 1));
    log.push({ kind: "pin", body: { pin: "p", backup: idOf("pinned"), reason: "" } });
    log.push(forget("forgotten"));
    log.push(forget("pinned"));
    const body = { from: [hashOf("p")], to: [hashOf("q")], segments: [segment("s", 1)] };
    log.push({ kind: "repack", body });
    log.push(backup("later", 1));
    expect(new Set(log.state.moves.keys())).toEqual(new Set([idOf("pinned"), idOf("listed")]));
    expect(log.state.retired.has(hashOf("p"))).toBe(true);
  });

  test("backup that overrides a forget is read without the moves of its former list", () => {
    const log = new LogBuilder();
    log.push(backup("a", 1));
    log.push({ kind: "repack", body: { from: [hashOf("p")], to: [hashOf("q")], segments: [] } });
    log.push(forget("a"));
    const overrides = { site: idOf("site"), sequence: log.state.sequence };
    log.push(backup("a", 1, { overrides }));
    expect(log.state.moves.size).toBe(0);
  });

  test("of an unknown critical kind blocks committing, and listing goes on", () => {
    const log = new LogBuilder();
    log.push(backup("a", 1));
    log.pushBytes(unknownEntry(log.state, { critical: true }));
    log.push(backup("b", 1));
    expect(log.state.blocked).toContain("`ship`");
    expect(listedBackups(log.state)).toHaveLength(2);
  });

  test("of an unknown kind that is not critical is passed over", () => {
    const log = new LogBuilder();
    log.pushBytes(unknownEntry(log.state, { critical: false }));
    expect(log.state.blocked).toBeUndefined();
    log.pushBytes(unknownEntry(log.state, { critical: false, committer: FORMAT_VERSION + 1 }));
    expect(log.state.blocked).toBeDefined();
  });

  test("that only a newer reader may read is refused", () => {
    const log = new LogBuilder();
    const bytes = unknownEntry(log.state, { critical: true, reader: FORMAT_VERSION + 1 });
    expect(kindOf(() => log.pushBytes(bytes))).toBe("refused");
  });
});

test("the newest complete backup is that of its cluster, whatever it is called", () => {
  const log = new LogBuilder();
  log.push(backup("a", 1));
  log.push(backup("b", 1, { cluster: "other" }));
  log.push(backup("c", 1, { complete: false }));
  expect(newestComplete(log.state)?.name).toBe("b");
  expect(newestComplete(log.state, "c")?.name).toBe("a");
  expect(newestComplete(log.state, "none")).toBeUndefined();
});

test("the newest complete backup is the one that began last, wherever it stands in the log", () => {
  const log = new LogBuilder();
  log.push(backup("new", 1, { started: "2026-11-22T19:00:00Z", ended: "2026-11-22T19:01:00Z" }));
  log.push(backup("stranded", 1, { started: "2026-11-22T17:00:00Z" }));
  expect(newestComplete(log.state)?.name).toBe("new");
  log.push(backup("twin", 1, { started: "2026-11-22T19:00:00Z", ended: "2026-11-22T19:01:00Z" }));
  expect(newestComplete(log.state)?.name).toBe("twin");
});

describe("for any log", () => {
  test("a replay from any checkpoint gives the state of a replay from entry 1", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), fc.nat(), (steps, cut) => {
        const log = buildLog(steps);
        const start = cut % log.states.length;
        const restored = throughCheckpoint(log.states[start]!);
        expect(restored).toEqual(log.states[start]!);
        const replay = new Replay(restored);
        for (const [index, bytes] of log.entries.entries()) {
          if (index >= start) replay.apply(decodeEntry(bytes, index + 1), entryHash(bytes));
        }
        expect(replay.state).toEqual(log.state);
        expect(encodeCheckpoint(replay.state).hash).toBe(encodeCheckpoint(log.state).hash);
      }),
      { numRuns: 150 },
    );
  });

  test("no state changes after it was handed out", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 40 }), (steps) => {
        const log = buildLog(steps);
        const before = log.states.map((state) => encodeCheckpoint(state).hash);
        const replay = new Replay(log.states[0]!);
        for (const [index, bytes] of log.entries.entries()) {
          replay.apply(decodeEntry(bytes, index + 1), entryHash(bytes));
        }
        expect(log.states.map((state) => encodeCheckpoint(state).hash)).toEqual(before);
      }),
      { numRuns: 30 },
    );
  });

  test("the floor never falls, and no segment a keep names stops being current", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
        let floor = 0;
        for (const state of buildLog(steps).states) {
          expect(state.floor).toBeGreaterThanOrEqual(floor);
          expect(state.floor).toBeLessThanOrEqual(Math.max(0, state.sequence - 1));
          ({ floor } = state);
          const kept = [...state.keeps.values()].flatMap(({ segments }) => segments);
          expect(kept.filter((id) => !state.segments.has(id))).toEqual([]);
          const pinned = [...state.pins.values()].filter((pin) => !state.backups.has(pin.backup));
          expect(pinned).toEqual([]);
        }
      }),
      { numRuns: 150 },
    );
  });

  test("random steps reach every kind both valid and void, so that the properties mean something", () => {
    const seen = new Set<string>();
    for (const steps of fc.sample(fc.array(step, { minLength: 60, maxLength: 60 }), {
      numRuns: 50,
      seed: 1,
    })) {
      const log = new LogBuilder();
      for (const next of steps) {
        const why = pushStep(log, next);
        seen.add(`${next.kind} ${why === undefined ? "valid" : "void"}`);
      }
    }
    const changing = ["backup", "forget", "undo", "delete", "pin", "merge", "repack", "keep"];
    const voidable = [...changing, "role", "repair"];
    const kinds = [...voidable, "note", "retire", "drop"];
    const expected = [
      ...kinds.map((kind) => `${kind} valid`),
      ...voidable.map((kind) => `${kind} void`),
    ];
    expect(expected.filter((what) => !seen.has(what))).toEqual([]);
  });
});

// Few names and births, so that entries meet each other.
const name = fc.constantFrom("a", "b", "c");
const names = fc.uniqueArray(name, { maxLength: 2 });
const back = fc.integer({ min: -1, max: 6 });
const step = fc.record({
  kind: fc.constantFrom(
    ...([
      "note",
      "backup",
      "backup",
      "keep",
      "forget",
      "undo",
      "retire",
      "delete",
      "delete",
    ] as const),
    ...(["pin", "drop", "merge", "merge", "repack", "role", "repair"] as const),
  ),
  name,
  names,
  more: names,
  back,
  flag: fc.boolean(),
});
type Step = typeof step extends fc.Arbitrary<infer Value> ? Value : never;

function buildLog(steps: readonly Step[]): LogBuilder {
  const log = new LogBuilder();
  for (const next of steps) pushStep(log, next);
  return log;
}

function pushStep(log: LogBuilder, next: Step): string | undefined {
  const rest = { operation: idOf(`operation ${next.name}`) };
  return log.push(draftOf(log.state, next), rest);
}

function draftOf(state: RepositoryState, next: Step): EntryDraft {
  const birth = Math.max(0, state.sequence - next.back);
  const packs = next.more.map(hashOf);
  const backups = next.names.map(idOf);
  const segments = next.names.map((of) => segment(of, birth));
  const forgotten = state.backups.get(idOf(next.name))?.forgotten?.sequence ?? 1;
  switch (next.kind) {
    case "note":
      return { kind: "note", body: { text: next.name } };
    case "backup": {
      const overrides = next.flag ? { site: state.siteId, sequence: forgotten } : undefined;
      const rest = { segments, revived: packs, ...(overrides === undefined ? {} : { overrides }) };
      return { kind: "backup", body: backupBody(next.name, birth, rest) };
    }
    case "keep":
      return { kind: "keep", body: { segments } };
    case "forget":
      return { kind: "forget", body: { backups, reason: "", scope: "all" } };
    case "undo":
      return { kind: "undo", body: { backup: idOf(next.name), forget: forgotten, revived: packs } };
    case "retire":
      return { kind: "retire", body: { packs } };
    case "delete":
      return { kind: "delete", body: { packs, backups: next.flag ? backups : [], floor: birth } };
    case "pin":
      return { kind: "pin", body: { pin: "p", backup: idOf(next.name), reason: "" } };
    case "drop":
      return {
        kind: "drop",
        body: { keeps: [idOf(`operation ${next.name}`)], pins: next.flag ? ["p"] : [] },
      };
    case "merge": {
      const output = next.flag ? segment(`out ${next.name}`, birth) : null;
      return { kind: "merge", body: { inputs: next.names.map(hashOf), output, dropped: packs } };
    }
    case "role": {
      const sites = next.names.map((of) => ({
        site: idOf(of),
        name: of,
        location: `/${of}`,
        role: of === next.name ? ("primary" as const) : ("mirror" as const),
      }));
      const body = { epoch: Math.max(1, next.back), primary: idOf(next.name), sites, reason: "" };
      return { kind: "role", body };
    }
    case "repair": {
      const kind = next.flag ? ("index" as const) : ("pack" as const);
      return { kind: "repair", body: { objects: [{ kind, id: hashOf(next.name), birth }] } };
    }
    case "repack":
      return { kind: "repack", body: { from: packs, to: [hashOf("new")], segments } };
  }
}

function throughCheckpoint(state: RepositoryState): RepositoryState {
  const { bytes, hash } = encodeCheckpoint(state);
  return decodeCheckpoint(bytes, { sequence: state.sequence, hash });
}

function unknownEntry(
  state: RepositoryState,
  rest: { critical: boolean; reader?: number; committer?: number },
): Uint8Array {
  const known = encodeEntry(nextEntry(state, { kind: "note", body: { text: "" } }));
  const value = { ...JSON.parse(new TextDecoder().decode(known)), kind: "ship", body: {}, ...rest };
  return new TextEncoder().encode(JSON.stringify(value));
}

function kindOf(action: () => unknown): string {
  try {
    action();
  } catch (thrown) {
    return thrown instanceof AppError ? thrown.kind : String(thrown);
  }
  return "nothing thrown";
}
