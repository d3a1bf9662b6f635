/**
 * Files of a backup as one archive, for those who have no Astacus: a stream of bytes, made as it is
 * read. The whole selection is walked before the first byte, so that what cannot be done (ZIP's
 * limits, a damaged listing, nothing that matches) is refused while there is still somebody to tell.
 * Memory: two windows of contents (archive-content.ts) and OUTPUT_SIZE_BYTES, whatever the size; for
 * ZIP the table of its entries as well (archive-zip-limits.ts).
 */
import { AppError } from "../../base/error.ts";
import { readContents } from "./archive-content.ts";
import type { ArchiveSelection, ArchiveWriter } from "./archive-entry.ts";
import { ArchiveEntries } from "./archive-entry.ts";
import { TarWriter } from "./archive-tar.ts";
import { ZipLimits } from "./archive-zip-limits.ts";
import { ZipWriter } from "./archive-zip.ts";

/** The kinds of archive: ZIP opens everywhere and has limits, tar has none. */
export const ARCHIVE_FORMATS = ["zip", "tar"] as const;

/** One of the kinds. */
export type ArchiveFormat = (typeof ARCHIVE_FORMATS)[number];

/** What to put into which kind of archive. */
export type ArchiveOptions = ArchiveSelection & { readonly format: ArchiveFormat };

/** An archive that can be made. */
export type Archive = {
  /** Entries of any kind, and bytes of the files among them. */
  readonly entryCount: number;
  readonly contentBytes: number;
  /** The archive itself; leaving early ends all reading. */
  readonly bytes: () => AsyncGenerator<Uint8Array, void, undefined>;
};

/** Pieces are gathered up to here: a header alone is not worth a packet. */
const OUTPUT_SIZE_BYTES = 128 * 1024;

/**
 * Looks through a selection and promises an archive of it. AppError `refused` for what ZIP cannot
 * hold, `not-found` where no file matches.
 *
 * @example
 * const archive = await archiveFiles({ volumes, source, format: "zip", foldersMtimeNs });
 * for await (const bytes of archive.bytes()) await write(bytes);
 */
export async function archiveFiles(options: ArchiveOptions): Promise<Archive> {
  const entries = await ArchiveEntries.open(options);
  const limits = options.format === "zip" ? new ZipLimits() : undefined;
  let entryCount = 0;
  let contentBytes = 0;
  for await (const batch of entries.batches()) {
    options.signal?.throwIfAborted();
    for (const entry of batch) {
      limits?.take(entry);
      entryCount += 1;
      if (entry.record.type === "file") contentBytes += entry.record.sizeBytes;
    }
  }
  if (entryCount === 0) throw nothingMatches(options);
  const batches = () => limits?.copyLinks(entries.batches()) ?? entries.batches();
  return { entryCount, contentBytes, bytes: () => writeArchive(batches(), options) };
}

async function* writeArchive(
  batches: ReturnType<ArchiveEntries["batches"]>,
  options: ArchiveOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  const output = new Output();
  const emit = (bytes: Uint8Array): void => output.push(bytes);
  const writer: ArchiveWriter =
    options.format === "zip" ? new ZipWriter(emit) : new TarWriter(emit);
  for await (const steps of readContents(batches, options)) {
    for (const step of steps) {
      options.signal?.throwIfAborted();
      if (step.kind === "entry") writer.open(step.entry);
      else await writer.write(step.bytes);
      if (output.sizeBytes >= OUTPUT_SIZE_BYTES) yield output.take();
    }
  }
  writer.finish();
  yield output.take();
}

/** Gathers pieces; they are not copied until they are taken. */
class Output {
  sizeBytes = 0;
  #pieces: Uint8Array[] = [];

  push(bytes: Uint8Array): void {
    this.#pieces.push(bytes);
    this.sizeBytes += bytes.length;
  }

  take(): Uint8Array {
    const bytes = Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.sizeBytes = 0;
    return bytes;
  }
}

function nothingMatches(options: ArchiveOptions): AppError {
  const globs = (options.paths ?? []).join(", ");
  return new AppError("not-found", `No file of the backup matches ${globs || "the choice"}.`, {
    guidance: "Globs are relative to the root of a volume, as `astacus show` prints them.",
  });
}
