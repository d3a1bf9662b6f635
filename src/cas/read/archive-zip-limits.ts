/**
 * The limits of plain ZIP, which every reader understands: they are checked against the whole
 * selection before the first byte is written, by what the archive can grow to at worst. The same walk
 * finds the files that hard links are other names of, since ZIP has no such links and the run must
 * copy them. Memory: sizes by name, of at most ZIP_ENTRY_COUNT_MAX entries.
 */
import { isUtf8 } from "node:buffer";
import { AppError } from "../../base/error.ts";
import { textFromPath } from "../../base/path.ts";
import type { ArchiveEntry } from "./archive-entry.ts";
import { deflatedBytesMax, overheadBytesOf } from "./archive-zip.ts";
import { bytesFromLatin1, damagedError } from "../format/bytes.ts";
import type { FileRecord } from "../format/listing.ts";

/** Entries that the number at the end can count. */
export const ZIP_ENTRY_COUNT_MAX = 65_535;

/** No offset or size may need more than 32 bits; all ones means that it is elsewhere. */
export const ZIP_SIZE_BYTES_MAX = 0xffff_fffe;

const NAME_SIZE_BYTES_MAX = 65_535;
const END_SIZE_BYTES = 22;

/** What is copied for a hard link: raw bytes, and at most so many in the archive. */
type Body = { readonly sizeBytes: number; readonly deflatedBytes: number };

/** Takes all entries once, and throws AppError `refused` at the first that does not fit. */
export class ZipLimits {
  readonly #bodies = new Map<string, Body>();
  /** Names of files that hard links refer to. */
  readonly #linked = new Set<string>();
  #entryCount = 0;
  #sizeBytes = END_SIZE_BYTES;

  take(entry: ArchiveEntry): void {
    const name = textFromPath(entry.name);
    const isText = isUtf8(bytesFromLatin1(entry.name)) && name.isWellFormed();
    if (!isText) throw tooMuch(`The name ${name} is not UTF-8`, { name });
    if (entry.name.length >= NAME_SIZE_BYTES_MAX) {
      throw tooMuch(`The name ${name.slice(0, 80)}… has ${entry.name.length} bytes`);
    }
    this.#entryCount += 1;
    if (this.#entryCount > ZIP_ENTRY_COUNT_MAX) {
      throw tooMuch(`There are more than ${ZIP_ENTRY_COUNT_MAX} files and directories`);
    }
    const body = this.#bodyOf(entry);
    if (body.sizeBytes > ZIP_SIZE_BYTES_MAX) {
      throw tooMuch(`${name} has ${body.sizeBytes} bytes`, { name });
    }
    this.#bodies.set(entry.name, body);
    this.#sizeBytes += overheadBytesOf(entry) + body.deflatedBytes;
    if (this.#sizeBytes > ZIP_SIZE_BYTES_MAX) throw tooMuch("All together is 4 GiB or more");
  }

  /** The entries of the run, with files in place of hard links; `take` has seen all of them. */
  async *copyLinks(
    batches: AsyncIterable<readonly ArchiveEntry[]>,
  ): AsyncGenerator<readonly ArchiveEntry[], void, undefined> {
    const files = new Map<string, FileRecord>();
    for await (const batch of batches) {
      yield batch.map((entry) => {
        const { name, target, record } = entry;
        if (this.#linked.has(name)) files.set(name, record);
        if (record.type !== "hardlink" || target === undefined) return entry;
        const original = files.get(target);
        if (original === undefined) throw linkToNothing(entry);
        const copy = { ...original, path: record.path };
        return { name, target: copy.type === "symlink" ? copy.target : undefined, record: copy };
      });
    }
  }

  #bodyOf(entry: ArchiveEntry): Body {
    const { record, target } = entry;
    switch (record.type) {
      case "directory":
        return { sizeBytes: 0, deflatedBytes: 0 };
      case "symlink":
        return bodyOf(record.target.length, 1);
      case "hardlink": {
        const body = target === undefined ? undefined : this.#bodies.get(target);
        if (target === undefined || body === undefined) throw linkToNothing(entry);
        this.#linked.add(target);
        return body;
      }
      case "file": {
        const { content, sizeBytes } = record;
        const isInline = content.form === "inline";
        return bodyOf(sizeBytes, isInline ? content.chunks.length : content.root.count);
      }
    }
  }
}

function bodyOf(sizeBytes: number, chunkCount: number): Body {
  return { sizeBytes, deflatedBytes: deflatedBytesMax(sizeBytes, chunkCount) };
}

function tooMuch(what: string, context: Readonly<Record<string, string>> = {}): AppError {
  return new AppError("refused", `${what}: more than plain ZIP can hold.`, {
    guidance: "Take tar, which has no such limits, or fewer files (--node, --path).",
    context: { ...context, reason: "zip-limits" },
  });
}

function linkToNothing(entry: ArchiveEntry): AppError {
  const fault = `has a hard link ${textFromPath(entry.name)} to what is no file`;
  return damagedError("The file listing", fault);
}
