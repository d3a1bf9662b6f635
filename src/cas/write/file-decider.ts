/**
 * Decides what a file costs: nothing (its stat and a listed backup vouch for the row), a look-up of
 * its chunks (the row is good and nobody vouches for it), its tail (an append-only file that grew), or
 * a read of all of it.
 */
import type { FileStat } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { fromHex } from "../../base/hex.ts";
import type { BackupContext } from "./backup-context.ts";
import { RACY_MS_DEFAULT } from "./backup-settings.ts";
import { ContentBuilder } from "./content-builder.ts";
import type { ChunkCheck, FileTask } from "./data-plane.ts";
import { decodeChunkRef } from "../format/listing.ts";
import type { ChunkRef } from "../format/listing.ts";
import type { StatContent, StatRow, VouchedRow } from "../catalog/stat-cache.ts";
import { readTree } from "../format/tree.ts";
import type { VolumeSource, WalkEntry } from "./volume-source.ts";

/** What to do with a file. A renewed row is written again under this operation. */
export type FileDecision =
  | { readonly how: "known"; readonly row: VouchedRow; readonly isRenewed: boolean }
  | { readonly how: "read"; readonly task: FileTask; readonly prefix?: ContentBuilder };

/** Decides on the files of one volume. */
export class FileDecider {
  readonly #context: BackupContext;
  readonly #volume: VolumeSource;
  readonly #racyNs: bigint;

  constructor(context: BackupContext, volume: VolumeSource) {
    this.#context = context;
    this.#volume = volume;
    this.#racyNs = BigInt(context.settings.racyMs ?? RACY_MS_DEFAULT) * 1_000_000n;
  }

  /** A promise only where the decision needs a chunk list from the site. */
  decide(entry: WalkEntry, row: VouchedRow | undefined): FileDecision | Promise<FileDecision> {
    if (row === undefined) return this.read(entry);
    const { settings, operation, trust } = this.#context;
    const file = { volume: this.#volume.name, path: entry.path };
    if (isRereadDue(file, operation, settings.rereadShare)) return this.read(entry);
    if (!isSameFile(entry.stat, row)) return this.read(entry);
    const sizeBytes = sizeOf(entry, this.#volume);
    const { ctimeCounts } = this.#volume;
    if (isUnchanged({ ...entry.stat, sizeBytes }, row, { ctimeCounts, racyNs: this.#racyNs })) {
      if (trust.trusts(row.operation)) return { how: "known", row, isRenewed: false };
      return this.#lookUp(entry, row);
    }
    if (!this.#hasGrown(entry, row)) return this.read(entry);
    return this.#resume(entry, row);
  }

  /** A read from the start. */
  read(entry: WalkEntry): { readonly how: "read"; readonly task: FileTask } {
    const { readPath: path, stat, sizeBytesCaptured } = entry;
    const isAppendOnly = this.#volume.nature(entry.path) === "append-only";
    const name = this.#volume.check?.(entry.path);
    const check = name === undefined ? {} : { check: { name, verifiedBytes: 0 } };
    if (!isAppendOnly) return { how: "read", task: { path, sizeBytes: stat.sizeBytes, ...check } };
    const sizeBytes = sizeBytesCaptured ?? stat.sizeBytes;
    return { how: "read", task: { path, sizeBytes, sizeBytesMax: sizeBytes, ...check } };
  }

  #hasGrown(entry: WalkEntry, row: VouchedRow): boolean {
    if (this.#volume.nature(entry.path) !== "append-only") return false;
    return sizeOf(entry, this.#volume) >= row.sizeBytes && countChunks(row.content) > 1;
  }

  #lookUp(entry: WalkEntry, row: VouchedRow): FileDecision | Promise<FileDecision> {
    const { content } = row;
    const known: FileDecision = { how: "known", row, isRenewed: true };
    if (content.form === "inline") {
      return this.#useAll(content.chunks) ? known : this.read(entry);
    }
    return this.#unlessDamaged(
      entry,
      this.#useTree(content).then((isKnown) => (isKnown ? known : this.read(entry))),
    );
  }

  #useAll(chunks: readonly ChunkRef[]): boolean {
    return chunks.every(({ id }) => this.#context.lookup.use(id));
  }

  /** The list is written again node by node, which enters its nodes as uses, then as it was. */
  async #useTree(content: Extract<StatContent, { form: "tree" }>): Promise<boolean> {
    const { fetchNode, lookup, putOpenNode } = this.#context;
    if (lookup.find(fromHex(content.root.id)) === undefined) return false;
    const copy = new ContentBuilder(putOpenNode);
    for await (const records of readTree(content.root, fetchNode, this.#readOptions())) {
      for (const record of records) {
        const chunk = decodeChunkRef(record);
        if (!lookup.use(chunk.id)) return false;
        copy.add(chunk);
      }
    }
    const written = copy.finish();
    return written.form === "tree" && written.root.id === content.root.id;
  }

  /** Reads the tail only, from the start of the last chunk, if the ends of the rest are as they were. */
  #resume(entry: WalkEntry, row: VouchedRow): FileDecision | Promise<FileDecision> {
    const read = this.read(entry);
    const resume = planResume(row);
    const isTrusted = this.#context.trust.trusts(row.operation);
    const { name } = read.task.check ?? {};
    const check = name === undefined ? {} : { check: { name, verifiedBytes: row.sizeBytes } };
    const task = { ...read.task, resume, ...check };
    const { content } = row;
    if (content.form === "inline") {
      const kept = content.chunks.slice(0, -1);
      if (!isTrusted && !this.#useAll(kept)) return read;
      const prefix = new ContentBuilder(this.#context.putOpenNode);
      for (const chunk of kept) prefix.add(chunk);
      return { how: "read", task, prefix };
    }
    return this.#unlessDamaged(
      entry,
      this.#readPrefix(content, isTrusted).then((prefix) =>
        prefix === undefined ? read : { how: "read", task, prefix },
      ),
    );
  }

  /** All of a long list but its last chunk; undefined if a chunk is not in the site. */
  async #readPrefix(
    content: Extract<StatContent, { form: "tree" }>,
    isTrusted: boolean,
  ): Promise<ContentBuilder | undefined> {
    const { fetchNode, lookup, putOpenNode } = this.#context;
    if (!isTrusted && lookup.find(fromHex(content.root.id)) === undefined) return undefined;
    const prefix = new ContentBuilder(putOpenNode);
    for await (const records of readTree(content.root, fetchNode, this.#readOptions())) {
      for (const record of records) {
        if (prefix.chunkCount === content.root.count - 1) break;
        const chunk = decodeChunkRef(record);
        if (!isTrusted && !lookup.use(chunk.id)) return undefined;
        prefix.add(chunk);
      }
    }
    return prefix;
  }

  /** A stored list of chunks that has rotted costs a read of the file, not the backup. */
  async #unlessDamaged(entry: WalkEntry, decision: Promise<FileDecision>): Promise<FileDecision> {
    try {
      return await decision;
    } catch (thrown) {
      if (!(thrown instanceof AppError) || thrown.kind !== "damaged") throw thrown;
      return this.read(entry);
    }
  }

  #readOptions(): { readonly signal?: AbortSignal | undefined } {
    return { signal: this.#context.signal };
  }
}

function sizeOf(entry: WalkEntry, volume: VolumeSource): number {
  if (volume.nature(entry.path) !== "append-only") return entry.stat.sizeBytes;
  return entry.sizeBytesCaptured ?? entry.stat.sizeBytes;
}

/** True if the row is of this file and not of another one that had its name. */
export function isSameFile(stat: Pick<FileStat, "inode" | "birthtimeNs">, row: StatRow): boolean {
  return row.inode === stat.inode && row.birthtimeNs === stat.birthtimeNs;
}

/** Changed within a tick of the stat means: perhaps also after it. */
export function isUnchanged(
  stat: Pick<FileStat, "sizeBytes" | "mtimeNs" | "ctimeNs">,
  row: StatRow,
  { ctimeCounts, racyNs }: { readonly ctimeCounts: boolean; readonly racyNs: bigint },
): boolean {
  if (row.sizeBytes !== stat.sizeBytes || row.mtimeNs !== stat.mtimeNs) return false;
  if (ctimeCounts && row.ctimeNs !== stat.ctimeNs) return false;
  const changedNs = ctimeCounts && row.ctimeNs > row.mtimeNs ? row.ctimeNs : row.mtimeNs;
  return row.takenNs - changedNs > racyNs;
}

/** Drawn from the operation's id, so that whoever asks before the backup gets the same answer. */
export function isRereadDue(
  file: { readonly volume: string; readonly path: string },
  operation: string,
  share: number,
): boolean {
  if (share <= 0) return false;
  const drawn = Bun.hash.xxHash32(`${operation}\0${file.volume}\0${file.path}`);
  return drawn < share * 2 ** 32;
}

function countChunks(content: StatContent): number {
  return content.form === "inline" ? content.chunks.length : content.root.count;
}

/**
 * The chunks to check: the first one, the last one that was cut by its content, and the one behind it
 * that was cut by the end of the file, where the chunker starts again.
 */
function planResume(row: VouchedRow): NonNullable<FileTask["resume"]> {
  const { content } = row;
  const [first, full, last] =
    content.form === "inline"
      ? [content.chunks[0]!, content.chunks.at(-2)!, content.chunks.at(-1)!]
      : [content.first, ...content.last];
  const offset = row.sizeBytes - last.length;
  const checks: ChunkCheck[] = [{ ...first, offset: 0 }];
  if (offset - full.length > 0) checks.push({ ...full, offset: offset - full.length });
  checks.push({ ...last, offset });
  return { offset, checks };
}
