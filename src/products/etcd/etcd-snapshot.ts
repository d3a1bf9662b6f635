/**
 * A snapshot of etcd's whole database as one file. etcd sends the database and, as its last 32 bytes,
 * the SHA-256 of what came before; a file is reported only if they agree. Memory: one part (32 KiB by
 * etcd's choice), whatever the size of the database.
 */
import type { FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import type { EtcdClient } from "./etcd-client.ts";
import { answers } from "./etcd-messages.ts";

/** A snapshot that is on disk. */
export type EtcdSnapshot = {
  /** Of the file: the database and its checksum. */
  readonly sizeBytes: number;
  /** Of the database, lower-case hex: what `etcdutl` checks as well. */
  readonly sha256: string;
  /** Who sent it. */
  readonly endpoint: string;
};

/** How long all of it may take. */
export type SnapshotOptions = { readonly timeoutMs: number; readonly signal?: AbortSignal };

const CHECKSUM_SIZE_BYTES = 32;
/** etcd's own pages; a snapshot without a checksum would be a multiple of it. */
const PAGE_SIZE_BYTES = 512;
const LINE_SIZE_BYTES_MAX = 16 * 1024 * 1024;
const ATTEMPTS = 3;
const LINE_FEED = 0x0a;

/** Writes a snapshot to a new file at `path` (a byte string), synced; tried again if it breaks off. */
export async function saveSnapshot(
  client: EtcdClient,
  options: SnapshotOptions & { readonly files: FileSystem; readonly path: string },
): Promise<EtcdSnapshot> {
  const { files, path } = options;
  const handle = files.open(path, "create");
  try {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await receive(client, handle, options);
      } catch (thrown) {
        options.signal?.throwIfAborted();
        const mayRepeat = thrown instanceof AppError && thrown.retryable && attempt < ATTEMPTS;
        if (!mayRepeat) throw thrown;
        files.truncate(handle, 0);
      }
    }
  } finally {
    files.close(handle);
  }
}

async function receive(
  client: EtcdClient,
  handle: number,
  options: SnapshotOptions & { readonly files: FileSystem },
): Promise<EtcdSnapshot> {
  const { files, timeoutMs, signal } = options;
  const how = { timeoutMs, ...(signal === undefined ? {} : { signal }) };
  const { endpoint, parts } = await client.snapshot(how);
  const hasher = new Bun.CryptoHasher("sha256");
  let tail: Uint8Array = new Uint8Array();
  let sizeBytes = 0;
  for await (const blob of blobsOf(parts, endpoint)) {
    files.write(handle, blob, sizeBytes);
    sizeBytes += blob.length;
    const held = Buffer.concat([tail, blob]);
    const end = Math.max(0, held.length - CHECKSUM_SIZE_BYTES);
    hasher.update(held.subarray(0, end));
    tail = held.subarray(end);
  }
  const sha256 = hasher.digest("hex");
  const isWhole = sizeBytes % PAGE_SIZE_BYTES === CHECKSUM_SIZE_BYTES;
  if (!isWhole || Buffer.from(tail).toString("hex") !== sha256) {
    throw new AppError("damaged", `The snapshot that ${endpoint} sent is not whole.`, {
      guidance: "Run it again; if it stays so, check that member's disk and etcd's log.",
      retryable: true,
      context: { endpoint, sizeBytes },
    });
  }
  files.sync(handle);
  return { sizeBytes, sha256, endpoint };
}

/** The parts of the stream: one JSON text a line. */
async function* blobsOf(
  parts: ReadableStream<Uint8Array>,
  endpoint: string,
): AsyncIterable<Uint8Array> {
  for await (const line of linesOf(parts, endpoint)) {
    const parsed = answers.snapshotPart.safeParse(parseLine(line));
    if (!parsed.success) throw brokenStream(endpoint, "it is not as etcd sends it");
    const { result, error } = parsed.data;
    if (error !== undefined) throw brokenStream(endpoint, error.message);
    if (result !== undefined) yield result.blob;
  }
}

async function* linesOf(
  parts: ReadableStream<Uint8Array>,
  endpoint: string,
): AsyncIterable<string> {
  let held: Uint8Array[] = [];
  let heldSizeBytes = 0;
  for await (const part of parts) {
    let rest = part;
    for (let end = rest.indexOf(LINE_FEED); end >= 0; end = rest.indexOf(LINE_FEED)) {
      yield Buffer.concat([...held, rest.subarray(0, end)]).toString();
      held = [];
      heldSizeBytes = 0;
      rest = rest.subarray(end + 1);
    }
    held.push(rest);
    heldSizeBytes += rest.length;
    if (heldSizeBytes > LINE_SIZE_BYTES_MAX) throw brokenStream(endpoint, "a part is too long");
  }
  if (heldSizeBytes > 0) yield Buffer.concat(held).toString();
}

function parseLine(line: string): unknown {
  if (line.trim() === "") return {};
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function brokenStream(endpoint: string, reason: string): AppError {
  return new AppError("unavailable", `The snapshot from ${endpoint} broke off: ${reason}.`, {
    guidance: "Run it again, and look at that member's log.",
    context: { endpoint },
  });
}
