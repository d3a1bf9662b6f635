/**
 * Keys and values of some prefixes as one file, `keys.ndjson`: one JSON text a line, sorted by the bytes
 * of the keys, so that what did not change has the same bytes in each backup. The revision is not in
 * it but in the manifest, for the same reason.
 *
 *     {"format":"astacus-etcd-keys","version":1,"ranges":["a/","b"]}
 *     {"key":"a/1","value":"dmFsdWU="}
 *     {"keyBase64":"YS//","value":""}
 *     {"count":2}
 *
 * `value` is base64; a key that is no UTF-8 stands as `keyBase64`. The last line tells a file that was
 * cut. Memory: one page of etcd, or one line.
 */
import { z } from "zod";
import type { FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { textFromPath } from "../../base/path.ts";
import type { EtcdClient, EtcdRange } from "./etcd-client.ts";
import { isCompacted } from "./etcd-client.ts";
import { decodeText, encodeBytes, encodeText } from "./etcd-messages.ts";
import type { EtcdEntry } from "./etcd-messages.ts";

/** What was written. */
export type EtcdDump = {
  /** The one revision of all keys. */
  readonly revision: bigint;
  readonly keyCount: number;
  /** Keys that were left out, since they end with a lease. */
  readonly leasedCount: number;
  readonly sizeBytes: number;
};

/** A key of a dump. */
export type DumpEntry = { readonly key: Uint8Array; readonly value: Uint8Array };

const FORMAT = "astacus-etcd-keys";
const VERSION = 1;
const READ_SIZE_BYTES = 256 * 1024;
const LINE_SIZE_BYTES_MAX = 64 * 1024 * 1024;
const ATTEMPTS = 3;
const LINE_FEED = 0x0a;

const headerSchema = z.strictObject({
  format: z.literal(FORMAT),
  version: z.literal(VERSION),
  ranges: z.array(z.string()),
});
const lineSchema = z.union([
  z.strictObject({ key: z.string(), value: z.base64() }),
  z.strictObject({ keyBase64: z.base64(), value: z.base64() }),
]);
const endSchema = z.strictObject({ count: z.int().min(0) });

/**
 * What is read for a list of prefixes (ending in `/`) and keys: sorted, and without what lies in
 * another one.
 */
export function disjointRanges(prefixes: readonly string[]): string[] {
  const isInside = (inner: string, outer: string): boolean =>
    inner !== outer && outer.endsWith("/") && inner.startsWith(outer);
  const unique = [...new Set(prefixes)];
  const kept = unique.filter((each) => !unique.some((other) => isInside(each, other)));
  return kept.toSorted((a, b) => Buffer.compare(encodeText(a), encodeText(b)));
}

/** Pages of everything in disjoint ranges, ascending, at one revision. */
export async function* listRanges(
  client: EtcdClient,
  ranges: readonly string[],
  options: { readonly signal?: AbortSignal } = {},
): AsyncIterable<EtcdRange> {
  let revision: bigint | undefined;
  for (const range of ranges) {
    const at = { ...options, ...(revision === undefined ? {} : { revision }) };
    if (range.endsWith("/")) {
      for await (const page of client.listPages(encodeText(range), at)) {
        ({ revision } = page);
        yield page;
      }
    } else {
      const page = await client.readKey(encodeText(range), at);
      ({ revision } = page);
      yield page;
    }
  }
}

/** Writes a dump to a new file (`path` is a byte string), synced; begins again after a compaction. */
export async function dumpKeys(
  client: EtcdClient,
  options: {
    readonly files: FileSystem;
    readonly path: string;
    readonly ranges: readonly string[];
    readonly signal?: AbortSignal;
  },
): Promise<EtcdDump> {
  const { files } = options;
  const handle = files.open(options.path, "create");
  try {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await writeDump(client, handle, options);
      } catch (thrown) {
        if (!isCompacted(thrown) || attempt >= ATTEMPTS) throw thrown;
        files.truncate(handle, 0);
      }
    }
  } finally {
    files.close(handle);
  }
}

async function writeDump(
  client: EtcdClient,
  handle: number,
  options: {
    readonly files: FileSystem;
    readonly ranges: readonly string[];
    readonly signal?: AbortSignal;
  },
): Promise<EtcdDump> {
  const { files, ranges, signal } = options;
  let sizeBytes = 0;
  const write = (lines: readonly object[]): void => {
    const text = encodeText(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    files.write(handle, text, sizeBytes);
    sizeBytes += text.length;
  };
  write([{ format: FORMAT, version: VERSION, ranges }]);
  let revision = 0n;
  let keyCount = 0;
  let leasedCount = 0;
  for await (const page of listRanges(client, ranges, signal === undefined ? {} : { signal })) {
    ({ revision } = page);
    const lasting = page.entries.filter(({ lease }) => lease === 0n);
    leasedCount += page.entries.length - lasting.length;
    keyCount += lasting.length;
    write(lasting.map(lineOf));
  }
  write([{ count: keyCount }]);
  files.sync(handle);
  return { revision, keyCount, leasedCount, sizeBytes };
}

/** Reads a dump line by line; what is not whole, not sorted or beyond its ranges is `damaged`. */
export function* readDump(
  files: FileSystem,
  path: string,
  ranges: readonly string[],
): Iterable<DumpEntry> {
  const handle = files.open(path, "r");
  try {
    const damaged = (reason: string): AppError =>
      new AppError("damaged", `${textFromPath(path)} is no whole dump of keys: ${reason}.`, {
        guidance: "Restore the file again, and verify the backup.",
      });
    let count = -1;
    let end: number | undefined;
    let last: Uint8Array | undefined;
    for (const line of linesOf(files, handle, damaged)) {
      if (end !== undefined) throw damaged("something follows its end");
      const value = parseLine(line, damaged);
      if (count < 0) {
        const header = headerSchema.safeParse(value);
        if (!header.success) throw damaged("its first line is not as it should be");
        if (!Bun.deepEquals(header.data.ranges, ranges)) throw damaged("it is of other prefixes");
        count = 0;
        continue;
      }
      const closing = endSchema.safeParse(value);
      if (closing.success) end = closing.data.count;
      else {
        const entry = parseEntry(value, damaged);
        if (last !== undefined && Buffer.compare(last, entry.key) >= 0) throw damaged("unsorted");
        if (!isInRanges(entry.key, ranges)) throw damaged("a key lies beyond its prefixes");
        last = entry.key;
        count += 1;
        yield entry;
      }
    }
    if (end !== count) throw damaged(`it has ${count} keys, and says ${end ?? "not"} how many`);
  } finally {
    files.close(handle);
  }
}

function* linesOf(
  files: FileSystem,
  handle: number,
  damaged: (reason: string) => AppError,
): Iterable<string> {
  const buffer = new Uint8Array(READ_SIZE_BYTES);
  let held: Uint8Array[] = [];
  let heldSizeBytes = 0;
  for (let offset = 0; ;) {
    const length = files.read(handle, buffer, offset);
    if (length === 0) break;
    offset += length;
    let rest = buffer.slice(0, length);
    for (let end = rest.indexOf(LINE_FEED); end >= 0; end = rest.indexOf(LINE_FEED)) {
      yield Buffer.concat([...held, rest.subarray(0, end)]).toString();
      held = [];
      heldSizeBytes = 0;
      rest = rest.subarray(end + 1);
    }
    held.push(rest);
    heldSizeBytes += rest.length;
    if (heldSizeBytes > LINE_SIZE_BYTES_MAX) throw damaged("a line is too long");
  }
  if (heldSizeBytes > 0) throw damaged("its last line is cut");
}

function lineOf({ key, value }: EtcdEntry): object {
  const text = decodeText(key);
  const name = text === undefined ? { keyBase64: encodeBytes(key) } : { key: text };
  return { ...name, value: encodeBytes(value) };
}

function parseLine(line: string, damaged: (reason: string) => AppError): unknown {
  try {
    return JSON.parse(line);
  } catch {
    throw damaged("a line is no JSON");
  }
}

function parseEntry(value: unknown, damaged: (reason: string) => AppError): DumpEntry {
  const parsed = lineSchema.safeParse(value);
  if (!parsed.success) throw damaged("a line is no key and value");
  const line = parsed.data;
  const key = "key" in line ? encodeText(line.key) : bytesOf(line.keyBase64);
  return { key, value: bytesOf(line.value) };
}

function isInRanges(key: Uint8Array, ranges: readonly string[]): boolean {
  return ranges.some((range) => {
    const bytes = encodeText(range);
    const start = key.subarray(0, bytes.length);
    const isPrefix = Buffer.compare(start, bytes) === 0;
    return isPrefix && (range.endsWith("/") || key.length === bytes.length);
  });
}

function bytesOf(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, "base64"));
}
