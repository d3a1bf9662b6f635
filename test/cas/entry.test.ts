/** Entries: round trips, strictness, and kinds of a later version. */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { decodeEntry, encodeEntry, ENTRY_KINDS } from "../../src/cas/log/entry.ts";
import type { EntryDraft } from "../../src/cas/log/entry.ts";
import { emptyState } from "../../src/cas/log/state.ts";
import {
  backupBody,
  hashOf,
  HEADER,
  HEADER_HASH,
  idOf,
  nextEntry,
  segment,
} from "./log-builder.ts";

const EMPTY = emptyState(HEADER_HASH, HEADER);

const RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

const DRAFTS: readonly EntryDraft[] = [
  { kind: "note", body: { text: "x" } },
  { kind: "backup", body: backupBody("b", 1, { overrides: { site: idOf("s"), sequence: 3 } }) },
  { kind: "backup", body: backupBody("d", 1, { degraded: true }) },
  { kind: "keep", body: { segments: [segment("s", 1)] } },
  { kind: "forget", body: { backups: [idOf("b")], reason: "r", scope: "all" } },
  { kind: "undo", body: { backup: idOf("b"), forget: 3, revived: [hashOf("p")] } },
  { kind: "retire", body: { packs: [hashOf("p")] } },
  { kind: "delete", body: { packs: [hashOf("p")], backups: [idOf("b")], floor: 3 } },
  { kind: "pin", body: { pin: "audit", backup: idOf("b"), reason: "r" } },
  { kind: "drop", body: { keeps: [idOf("o")], pins: ["audit"] } },
  { kind: "merge", body: { inputs: [hashOf("s")], output: null, dropped: [hashOf("p")] } },
  { kind: "repack", body: { from: [hashOf("p")], to: [hashOf("q")], segments: [segment("t", 1)] } },
  {
    kind: "role",
    body: {
      epoch: 1,
      primary: idOf("s"),
      sites: [
        { site: idOf("s"), name: "s", location: "/s", role: "primary" },
        { site: idOf("t"), name: "t", location: "/t", role: "mirror", retention: { daily: 7 } },
      ],
      reason: "r",
    },
  },
  {
    kind: "keep",
    body: {
      segments: [],
      keys: [{ id: hashOf("k"), birth: 1, hash: hashOf("o"), recipients: [RECIPIENT] }],
    },
  },
  { kind: "closed", body: { successor: idOf("t"), reason: "r" } },
  {
    kind: "rekey",
    body: { recipients: [RECIPIENT], keys: [{ id: hashOf("k"), birth: 1, hash: hashOf("o") }] },
  },
  { kind: "repair", body: { objects: [{ kind: "pack", id: hashOf("p"), birth: 1 }] } },
];

describe("an entry", () => {
  test("of every kind survives its bytes", () => {
    expect([...new Set(DRAFTS.map(({ kind }) => kind))]).toEqual([...ENTRY_KINDS]);
    for (const draft of DRAFTS) {
      const entry = nextEntry(EMPTY, draft);
      expect(decodeEntry(encodeEntry(entry), 1)).toEqual(entry);
    }
  });

  test("is one line of JSON whose bytes do not depend on the order of its keys", () => {
    const entry = nextEntry(EMPTY, { kind: "note", body: { text: "a\nb" } });
    const turned = Object.fromEntries(Object.entries(entry).toReversed()) as typeof entry;
    expect(encodeEntry(turned)).toEqual(encodeEntry(entry));
    expect(textOf(encodeEntry(entry)).split("\n")).toHaveLength(2);
  });

  test("found under another sequence is damage", () => {
    const bytes = encodeEntry(nextEntry(EMPTY, { kind: "note", body: { text: "" } }));
    expect(errorOf(() => decodeEntry(bytes, 2)).kind).toBe("damaged");
  });

  test("with an unknown key, in the envelope or the body, is damage that names the entry", () => {
    const entry = nextEntry(EMPTY, { kind: "note", body: { text: "" } });
    for (const value of [
      { ...entry, extra: 1 },
      { ...entry, body: { text: "", extra: 1 } },
    ]) {
      const error = errorOf(() => decodeEntry(jsonBytes(value), 1));
      expect(error.kind).toBe("damaged");
      expect(error.message).toContain("log/000000000001");
    }
  });

  test("that is cut short anywhere is damage", () => {
    const bytes = encodeEntry(nextEntry(EMPTY, { kind: "note", body: { text: "x" } }));
    // The last byte is a line feed, which JSON does not need.
    for (let length = 0; length < bytes.length - 1; length += 1) {
      expect(errorOf(() => decodeEntry(bytes.subarray(0, length), 1)).kind).toBe("damaged");
    }
  });

  test("of a reserved kind decodes as unknown, with its name", () => {
    for (const kind of ["ship", "lock"]) {
      const entry = { ...nextEntry(EMPTY, { kind: "note", body: { text: "" } }), kind };
      const decoded = decodeEntry(jsonBytes({ ...entry, body: { any: ["thing"] } }), 1);
      expect(decoded).toMatchObject({ kind: "unknown", name: kind, body: { any: ["thing"] } });
    }
  });

  test("of a newer version is refused, with the advice to upgrade", () => {
    const entry = { ...nextEntry(EMPTY, { kind: "note", body: { text: "" } }), v: 2 };
    const error = errorOf(() => decodeEntry(jsonBytes(entry), 1));
    expect(error.kind).toBe("refused");
    expect(error.guidance).toContain("Upgrade");
  });
});

function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

function errorOf(action: () => unknown): AppError {
  try {
    action();
  } catch (thrown) {
    if (thrown instanceof AppError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}
