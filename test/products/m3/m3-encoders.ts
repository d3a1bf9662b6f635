/** M3's formats, written: for tests of what reads them, and for the toy M3 of the simulator. */
import { create, toBinary } from "@bufbuild/protobuf";
import { encode } from "@msgpack/msgpack";
import { adler32 } from "../../../src/products/m3/adler32.ts";
import { IndexDigestsSchema } from "../../../src/products/m3/proto/index-fileset.pb.ts";
import { SnapshotMetadataSchema } from "../../../src/products/m3/proto/snapshot.pb.ts";
import { encodeChecksum } from "../../../src/products/m3/snapshot-metadata.ts";

/** One point of a log. */
export type LogPoint = {
  /** Number of the series in this log. */
  readonly series: number;
  /** At the first entry of a series in a log only. */
  readonly described?: { readonly id: string; readonly namespace: string; readonly shard: number };
  readonly timestampNs: bigint;
  readonly value: number;
};

/** What a data fileset is made of. */
export type FilesetContent = {
  readonly blockStartNs: bigint;
  readonly volume: number;
  readonly entryCount: number;
  readonly data: Uint8Array;
  /** Of snapshots: 32 hex digits. */
  readonly snapshotUuid?: string;
};

/** A chunk: header and data. */
export function encodeChunk(data: Uint8Array): Uint8Array {
  const chunk = new Uint8Array(12 + data.length);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length, true);
  view.setUint32(4, adler32(chunk.subarray(0, 4)), true);
  view.setUint32(8, adler32(data), true);
  chunk.set(data, 12);
  return chunk;
}

/** The first message of a log, with its size. */
export function encodeLogInfo(index: number): Uint8Array {
  return framed(Buffer.concat([encode(1), encode([7, [0, 0, index]])]));
}

/** One entry, with its size. By hand: a simulation writes millions of them. */
export function encodeLogEntry({ series, described, timestampNs, value }: LogPoint): Uint8Array {
  const head = Buffer.alloc(18);
  // Version 1, a pair of type 8 and seven fields, of which the first is the series.
  head.set([0x01, 0x92, 0x08, 0x97, 0xce]);
  head.writeUInt32BE(series, 5);
  head[9] = 0xcf;
  head.writeBigUInt64BE(timestampNs, 10);
  const tail = Buffer.alloc(20);
  tail[0] = 0xcf;
  tail.writeBigUInt64BE(timestampNs, 1);
  tail[9] = 0xcb;
  tail.writeDoubleBE(value, 10);
  // The unit is seconds; no annotation.
  tail.set([0x01, 0xc0], 18);
  return framed(Buffer.concat([head, encodeSeries(described), tail]));
}

function encodeSeries(described: LogPoint["described"]): Uint8Array {
  if (described === undefined) return Uint8Array.of(0xc0);
  const { id, namespace, shard } = described;
  return encode(
    Buffer.concat([
      encode(1),
      encode([9, [latin1(id), latin1(namespace), shard]]),
      // Announced as three fields; M3 writes the tags behind them all the same.
      encode(latin1("tags")),
    ]),
  );
}

/** The seven parts of a data or snapshot fileset, in the order in which M3 finishes them. */
export function encodeFileset(content: FilesetContent): [part: string, bytes: Uint8Array][] {
  const parts: [string, Uint8Array][] = [
    ["info", encodeFilesetInfo(content)],
    ["index", latin1(`index of ${content.entryCount}`)],
    ["summaries", latin1("summaries")],
    ["bloomfilter", latin1("bloom")],
    ["data", content.data],
  ];
  const digest = new Uint8Array(20);
  const view = new DataView(digest.buffer);
  parts.forEach(([, bytes], index) => view.setUint32(index * 4, adler32(bytes), true));
  return [...parts, ["digest", digest], ["checkpoint", encodeChecksum(adler32(digest))]];
}

/** The info file of a data or snapshot fileset, as M3 1.5 writes it: of type 0 in any case. */
export function encodeFilesetInfo(content: FilesetContent): Uint8Array {
  const { blockStartNs, volume, entryCount, snapshotUuid } = content;
  const uuid = snapshotUuid === undefined ? null : Buffer.from(snapshotUuid, "hex");
  const head = [blockStartNs, 60_000_000_000n, entryCount, 1, [1], [8, 2]];
  const fields = [...head, blockStartNs, 0, uuid, volume, 1];
  return Buffer.concat([encode(1), encode([2, fields], { useBigInt64: true })]);
}

/** An index fileset of one segment. */
export function encodeIndexFileset(segment: Uint8Array): [part: string, bytes: Uint8Array][] {
  const info = latin1("index info");
  const names = ["docdata", "docidx", "postingsdata", "fstfields", "fstterms"];
  const digest = toBinary(
    IndexDigestsSchema,
    create(IndexDigestsSchema, {
      infoDigest: adler32(info),
      segments: [
        {
          segmentType: "fst",
          files: names.map((fileType) => ({ fileType, digest: adler32(segment) })),
        },
      ],
    }),
  );
  return [
    ["info", info],
    ...names.map((name): [string, Uint8Array] => [`segment-0-${name}`, segment]),
    ["digest", digest],
    ["checkpoint", encodeChecksum(adler32(digest))],
  ];
}

/** Metadata of a snapshot and their checkpoint. */
export function encodeSnapshotMetadata(snapshot: {
  readonly index: number;
  /** 32 hex digits. */
  readonly uuid: string;
  readonly commitLog: { readonly path: string; readonly index: number };
}): { readonly metadata: Uint8Array; readonly checkpoint: Uint8Array } {
  const { index, uuid, commitLog } = snapshot;
  const dashed = uuid.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  const metadata = toBinary(
    SnapshotMetadataSchema,
    create(SnapshotMetadataSchema, {
      snapshotIndex: BigInt(index),
      snapshotUuid: latin1(dashed),
      commitLogId: { filePath: commitLog.path, index: BigInt(commitLog.index) },
    }),
  );
  return { metadata, checkpoint: encodeChecksum(adler32(metadata)) };
}

function framed(message: Uint8Array): Uint8Array {
  const size: number[] = [];
  let rest = message.length;
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) size.push((rest % 128) | 0x80);
  size.push(rest);
  return Buffer.concat([Uint8Array.from(size), message]);
}

function latin1(text: string): Uint8Array {
  return Buffer.from(text, "latin1");
}
