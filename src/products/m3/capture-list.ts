/**
 * What a capture found, on disk between the phases `capture` and `store`: one line a path, in the
 * order in which the volume is read. It keeps the stat of each path as it was taken, so a file that
 * M3 deletes after the capture is still in the backup if an earlier one holds its bytes. Memory: one
 * buffer, whatever the number of files.
 */
import type { FileStat, FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";

/** One path of a volume, as the capture found it. */
export type CapturedEntry = {
  /** Relative to the volume's root, a byte string. */
  readonly path: string;
  /** Taken before anything was linked. */
  readonly stat: FileStat;
  /** True if a hard link in the capture's folder holds the file. */
  readonly isLinked: boolean;
  /** Of commit logs: where their last whole chunk ends. */
  readonly sizeBytesCaptured?: number;
};

const BUFFER_SIZE_BYTES = 256 * 1024;

/** Writes the list of one volume; paths ascend. */
export class CaptureListWriter implements Disposable {
  readonly #files: FileSystem;
  readonly #handle: number;
  #lines: string[] = [];
  #lineSize = 0;
  #offset = 0;

  /** Creates the file; what lies there is replaced. */
  constructor(files: FileSystem, path: string) {
    this.#files = files;
    if (files.lstat(path) !== undefined) files.unlink(path);
    this.#handle = files.open(path, "create");
  }

  add(entry: CapturedEntry): void {
    const line = encodeEntry(entry);
    this.#lines.push(line);
    this.#lineSize += line.length;
    if (this.#lineSize >= BUFFER_SIZE_BYTES) this.#flush();
  }

  /** Writes what is left and closes the file. */
  [Symbol.dispose](): void {
    try {
      this.#flush();
    } finally {
      this.#files.close(this.#handle);
    }
  }

  #flush(): void {
    if (this.#lines.length === 0) return;
    const bytes = Buffer.from(this.#lines.join(""), "utf8");
    this.#files.write(this.#handle, bytes, this.#offset);
    this.#offset += bytes.length;
    this.#lines = [];
    this.#lineSize = 0;
  }
}

/**
 * The entries of a list, in its order.
 * @param needle - Only lines with this text in them, as they are written; others cost next to nothing.
 */
export function* readCaptureList(
  files: FileSystem,
  path: string,
  needle = "",
): Generator<CapturedEntry> {
  const handle = files.open(path, "r");
  try {
    const buffer = new Uint8Array(BUFFER_SIZE_BYTES);
    let rest: Uint8Array = new Uint8Array(0);
    for (let offset = 0; ;) {
      const count = files.read(handle, buffer, offset);
      if (count === 0) break;
      offset += count;
      const bytes = Buffer.concat([rest, buffer.subarray(0, count)]);
      const wholeEnd = bytes.lastIndexOf(0x0a) + 1;
      yield* readLines(bytes.subarray(0, wholeEnd), needle);
      rest = Buffer.from(bytes.subarray(wholeEnd));
    }
    if (rest.length > 0) throw unreadable();
  } finally {
    files.close(handle);
  }
}

/** Whole lines; with a needle only those where it is. */
function* readLines(bytes: Buffer, needle: string): Generator<CapturedEntry> {
  for (let start = 0; start < bytes.length;) {
    if (needle !== "") {
      const found = bytes.indexOf(needle, start);
      if (found < 0) return;
      start = Math.max(start, bytes.lastIndexOf(0x0a, found) + 1);
    }
    const end = bytes.indexOf(0x0a, start);
    yield decodeEntry(bytes.toString("utf8", start, end));
    start = end + 1;
  }
}

/** JSON keeps any byte of a path: as a char of its own, and a line break escaped. */
function encodeEntry({ path, stat, isLinked, sizeBytesCaptured }: CapturedEntry): string {
  const fields = [
    path,
    stat.type,
    stat.sizeBytes,
    String(stat.mtimeNs),
    String(stat.ctimeNs),
    String(stat.birthtimeNs),
    stat.mode,
    stat.uid,
    stat.gid,
    String(stat.inode),
    String(stat.device),
    stat.linkCount,
    isLinked ? 1 : 0,
    sizeBytesCaptured ?? -1,
  ];
  return `${JSON.stringify(fields)}\n`;
}

type Line = [
  string,
  FileStat["type"],
  number,
  string,
  string,
  string,
  number,
  number,
  number,
  string,
  string,
  number,
  0 | 1,
  number,
];

function decodeEntry(line: string): CapturedEntry {
  const fields = JSON.parse(line) as Line;
  if (fields.length !== 14) throw unreadable();
  const [path, type, sizeBytes, mtime, ctime, birthtime, mode, uid, gid, inode, device] = fields;
  const [, , , , , , , , , , , linkCount, isLinked, captured] = fields;
  const stat: FileStat = {
    type,
    sizeBytes,
    mtimeNs: BigInt(mtime),
    ctimeNs: BigInt(ctime),
    birthtimeNs: BigInt(birthtime),
    mode,
    uid,
    gid,
    inode: BigInt(inode),
    device: BigInt(device),
    linkCount,
  };
  return {
    path,
    stat,
    isLinked: isLinked === 1,
    ...(captured < 0 ? {} : { sizeBytesCaptured: captured }),
  };
}

function unreadable(): AppError {
  return new AppError("damaged", "The list of what was captured is cut short.", {
    guidance: "Run the backup again; check the disk that holds the captures.",
    retryable: true,
  });
}
