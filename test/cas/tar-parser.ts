/**
 * Reads tar archives for tests, by the book (POSIX pax and ustar) and with nothing of ours: each
 * header's checksum is checked, and an archive must end with two blocks of zeros.
 */

/** One entry. Names and values of pax are byte strings. */
export type TarEntry = {
  readonly name: string;
  readonly target: string;
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
  readonly content: Uint8Array;
  readonly pax: ReadonlyMap<string, string>;
};

const BLOCK = 512;

/** All entries of an archive, in order. */
export function parseTar(archive: Uint8Array): TarEntry[] {
  const bytes = Buffer.from(archive.buffer, archive.byteOffset, archive.byteLength);
  const entries: TarEntry[] = [];
  let pax = new Map<string, string>();
  let offset = 0;
  for (;;) {
    const block = bytes.subarray(offset, offset + BLOCK);
    if (block.length < BLOCK) throw new Error("the archive ends in the middle");
    if (block.every((byte) => byte === 0)) break;
    offset += BLOCK;
    checkHeader(block);
    const size = Number(pax.get("size") ?? octal(block, 124, 12));
    const content = bytes.subarray(offset, offset + size);
    if (content.length < size) throw new Error("the archive ends in a file");
    offset += Math.ceil(size / BLOCK) * BLOCK;
    const type = block.toString("latin1", 156, 157);
    if (type === "x") {
      pax = parsePax(content);
      continue;
    }
    entries.push({
      name: pax.get("path") ?? field(block, 0, 100),
      target: pax.get("linkpath") ?? field(block, 157, 100),
      type,
      mode: octal(block, 100, 8),
      uid: Number(pax.get("uid") ?? octal(block, 108, 8)),
      gid: Number(pax.get("gid") ?? octal(block, 116, 8)),
      mtimeNs: nanoseconds(pax.get("mtime") ?? String(octal(block, 136, 12))),
      content,
      pax,
    });
    pax = new Map();
  }
  const end = bytes.subarray(offset);
  if (end.length < 2 * BLOCK || end.some((byte) => byte !== 0)) throw new Error("no proper end");
  return entries;
}

function checkHeader(block: Buffer): void {
  if (block.toString("latin1", 257, 265) !== "ustar\x0000") throw new Error("it is not ustar");
  const sum = block.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 32 : byte), 0);
  if (octal(block, 148, 8) !== sum) throw new Error("a header's checksum is wrong");
}

function parsePax(content: Buffer): Map<string, string> {
  const found = new Map<string, string>();
  let at = 0;
  while (at < content.length) {
    const space = content.indexOf(" ", at);
    const end = at + Number(content.toString("latin1", at, space));
    const line = content.toString("latin1", space + 1, end);
    const equals = line.indexOf("=");
    if (equals < 0 || !line.endsWith("\n")) throw new Error("a pax record is broken");
    found.set(line.slice(0, equals), line.slice(equals + 1, -1));
    at = end;
  }
  return found;
}

function field(block: Buffer, offset: number, length: number): string {
  const text = block.toString("latin1", offset, offset + length);
  const end = text.indexOf("\0");
  return end < 0 ? text : text.slice(0, end);
}

function octal(block: Buffer, offset: number, length: number): number {
  return Number.parseInt(field(block, offset, length).trim(), 8);
}

function nanoseconds(seconds: string): bigint {
  const [whole = "", fraction = ""] = seconds.replace("-", "").split(".");
  const magnitude = BigInt(whole) * 1_000_000_000n + BigInt(fraction.padEnd(9, "0"));
  return seconds.startsWith("-") ? -magnitude : magnitude;
}
