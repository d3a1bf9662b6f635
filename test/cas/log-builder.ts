/**
 * Builds logs for tests: entries with a right chain and plausible bodies, from short names. An id is
 * the name's hash, so that a test can name the same thing twice.
 */
import { FORMAT_VERSION } from "../../src/cas/format/header.ts";
import { sha256Hex } from "../../src/base/hex.ts";
import { decodeEntry, encodeEntry, entryHash } from "../../src/cas/log/entry.ts";
import type { BackupBody, EntryDraft, EntryEnvelope, KnownEntry } from "../../src/cas/log/entry.ts";
import { encodeHeader, headerHash } from "../../src/cas/format/header.ts";
import type { RepositoryHeader } from "../../src/cas/format/header.ts";
import { applyEntry } from "../../src/cas/log/replay.ts";
import { newBirths } from "../../src/cas/log/state-rules.ts";
import { emptyState } from "../../src/cas/log/state.ts";
import type { RepositoryState } from "../../src/cas/log/state.ts";

/** A 64-digit id for a name. */
export function hashOf(name: string): string {
  return sha256Hex(new TextEncoder().encode(name));
}

/** A 32-digit id for a name. */
export function idOf(name: string): string {
  return hashOf(name).slice(0, 32);
}

export const HEADER: RepositoryHeader = {
  format: "astacus",
  version: FORMAT_VERSION,
  repository: idOf("repository"),
  site: idOf("site"),
  created: "2026-11-22T18:00:00.000Z",
  hash: "sha256",
  chunker: { rule: "astacus-cdc-1", averageSizeBytes: 262_144 },
  encryption: null,
};

export const HEADER_HASH = headerHash(encodeHeader(HEADER));

/** A segment reference. */
export function segment(name: string, birth: number): BackupBody["segments"][number] {
  return { id: hashOf(name), birth, sizeBytes: 100, packs: 1, chunks: 1 };
}

/** A backup's body. */
export function backupBody(
  name: string,
  birth: number,
  rest: Partial<BackupBody> = {},
): BackupBody {
  return {
    backup: idOf(name),
    name,
    cluster: "c",
    product: "files",
    started: "2026-11-22T18:00:00Z",
    ended: "2026-11-22T18:01:00Z",
    complete: true,
    problems: 0,
    plannedAt: birth,
    manifest: { id: hashOf(`manifest ${name}`), birth, sizeBytes: 10 },
    segments: [],
    revived: [],
    lists: [{ node: "a", root: { id: hashOf(`list ${name}`), length: 1, count: 0 } }],
    listPacks: [],
    totals: { files: 1, bytes: 1, newBytes: 1, storedBytes: 1 },
    ...rest,
  };
}

/** The next entry on a state, with births as a committer would compute them. */
export function nextEntry(
  state: RepositoryState,
  draft: EntryDraft,
  rest: Partial<EntryEnvelope> = {},
): KnownEntry {
  const births = newBirths(state, draft);
  const { kind, body } = draft;
  return {
    v: FORMAT_VERSION,
    sequence: state.sequence + 1,
    previous: state.entryHash,
    id: idOf(`entry ${state.sequence + 1}`),
    operation: idOf(`operation ${state.sequence + 1}`),
    time: "2026-11-22T18:00:00.000Z",
    writer: { node: "a", version: "0.1.0" },
    critical: true,
    reader: FORMAT_VERSION,
    committer: FORMAT_VERSION,
    checkpoint: null,
    births: births.length === 0 ? null : [Math.min(...births), Math.max(...births)],
    kind,
    body,
    ...rest,
  } as KnownEntry;
}

/** A log under construction: pushes drafts, remembers bytes and every state. */
export class LogBuilder {
  state: RepositoryState = emptyState(HEADER_HASH, HEADER);
  /** Bytes by sequence - 1. */
  readonly entries: Uint8Array[] = [];
  /** The state after entry `index`. */
  readonly states: RepositoryState[] = [this.state];

  constructor() {
    this.push({ kind: "note", body: { text: "made", header: HEADER_HASH } });
  }

  /** Appends an entry; returns why it is void, if it is. */
  push(draft: EntryDraft, rest: Partial<EntryEnvelope> = {}): string | undefined {
    return this.pushBytes(encodeEntry(nextEntry(this.state, draft, rest)));
  }

  /** Appends an entry as bytes. */
  pushBytes(bytes: Uint8Array): string | undefined {
    const entry = decodeEntry(bytes, this.state.sequence + 1);
    const result = applyEntry(this.state, entry, entryHash(bytes));
    this.entries.push(bytes);
    this.state = result.state;
    this.states.push(result.state);
    return result.void;
  }

  /** Appends notes until the log has this many entries. */
  padTo(sequence: number): void {
    while (this.state.sequence < sequence) this.push({ kind: "note", body: { text: "" } });
  }
}
