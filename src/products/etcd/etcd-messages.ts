/**
 * The messages of etcd's v3 JSON gateway, as plain values: keys and values are bytes, 64-bit numbers
 * are bigints. The gateway writes 64-bit numbers as text and leaves out whatever is empty or zero (a
 * key with an empty value has no `value`, an empty range no `kvs`): the schemas here fill that in,
 * and nothing else needs to know.
 */
import { z } from "zod";
import { AppError } from "../../base/error.ts";

/** One key as etcd holds it at the revision that was read. */
export type EtcdEntry = {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly createRevision: bigint;
  readonly modRevision: bigint;
  /** Counts writes since the key was made; 1 for a new one. */
  readonly version: bigint;
  /** The lease that the key ends with; 0n for one that stays. */
  readonly lease: bigint;
};

/** What a transaction asks of one key before it writes; `modRevision: 0n` means "is not there". */
export type EtcdCompare = { readonly key: Uint8Array } & (
  | { readonly modRevision: bigint }
  | { readonly version: bigint }
  | { readonly value: Uint8Array }
);

/** One write of a transaction. A delete without `rangeEnd` takes one key. */
export type EtcdWrite =
  | { readonly put: Uint8Array; readonly value: Uint8Array }
  | { readonly delete: Uint8Array; readonly rangeEnd?: Uint8Array };

/** A transaction: all writes at one revision if every comparison holds, or nothing. */
export type EtcdTransaction = {
  readonly compare?: readonly EtcdCompare[];
  readonly writes: readonly EtcdWrite[];
};

/** One member of the etcd cluster. */
export type EtcdMember = {
  readonly id: bigint;
  readonly name: string;
  readonly clientUrls: readonly string[];
  readonly peerUrls: readonly string[];
  readonly learner: boolean;
};

/** What one member says of itself. */
export type EtcdStatus = {
  readonly version: string;
  readonly clusterId: bigint;
  readonly memberId: bigint;
  readonly revision: bigint;
  readonly databaseSizeBytes: number;
  /** 0n where the member sees no leader. */
  readonly leader: bigint;
  readonly errors: readonly string[];
};

const int64 = z
  .union([z.string(), z.number()])
  .default("0")
  .transform((value) => BigInt(value));
const bytes = z
  .string()
  .default("")
  .transform((text): Uint8Array => new Uint8Array(Buffer.from(text, "base64")));

// Unknown fields are let pass: newer servers say more.
const header = z.object({ cluster_id: int64, member_id: int64, revision: int64 });
const keyValue = z
  .object({
    key: bytes,
    value: bytes,
    create_revision: int64,
    mod_revision: int64,
    version: int64,
    lease: int64,
  })
  .transform((kv): EtcdEntry => {
    return {
      key: kv.key,
      value: kv.value,
      createRevision: kv.create_revision,
      modRevision: kv.mod_revision,
      version: kv.version,
      lease: kv.lease,
    };
  });

/** The gateway's answers, by what was asked. */
export const answers = {
  range: z.object({
    header,
    kvs: z.array(keyValue).default([]),
    more: z.boolean().default(false),
    count: int64,
  }),
  transaction: z.object({ header, succeeded: z.boolean().default(false) }),
  put: z.object({ header }),
  authenticate: z.object({ token: z.string().min(1) }),
  version: z.object({ etcdserver: z.string(), etcdcluster: z.string().default("") }),
  status: z
    .object({
      header,
      version: z.string().default(""),
      dbSize: int64,
      leader: int64,
      errors: z.array(z.string()).default([]),
    })
    .transform((status): EtcdStatus => {
      return {
        version: status.version,
        clusterId: status.header.cluster_id,
        memberId: status.header.member_id,
        revision: status.header.revision,
        databaseSizeBytes: Number(status.dbSize),
        leader: status.leader,
        errors: status.errors,
      };
    }),
  members: z.object({
    members: z
      .array(
        z
          .object({
            ID: int64,
            name: z.string().default(""),
            clientURLs: z.array(z.string()).default([]),
            peerURLs: z.array(z.string()).default([]),
            isLearner: z.boolean().default(false),
          })
          .transform((member): EtcdMember => {
            const { ID: id, name, isLearner: learner } = member;
            const { clientURLs: clientUrls, peerURLs: peerUrls } = member;
            return { id, name, clientUrls, peerUrls, learner };
          }),
      )
      .default([]),
  }),
  snapshotPart: z.object({
    result: z.object({ remaining_bytes: int64, blob: bytes }).optional(),
    error: z.object({ message: z.string().default("") }).optional(),
  }),
};

/** The gateway's error body; the shape changed with its versions. */
export const failureBody = z.object({
  message: z.string().optional(),
  error: z.union([z.string(), z.object({ message: z.string().optional() })]).optional(),
});

/** The first key after all that begin with `prefix`: the end of its range. */
export function endOfPrefix(prefix: Uint8Array): Uint8Array {
  const end = prefix.slice();
  for (let index = end.length - 1; index >= 0; index -= 1) {
    const byte = end[index];
    if (byte === undefined || byte === 0xff) continue;
    end[index] = byte + 1;
    return end.subarray(0, index + 1);
  }
  // etcd's way to say "to the end of all keys".
  return new Uint8Array([0]);
}

/**
 * The bytes of a prefix. It must end in `/`: a prefix `prod` would take the keys of `prod2` as well.
 */
export function parsePrefix(text: string): Uint8Array {
  if (!text.endsWith("/")) {
    throw new AppError("usage", `The prefix "${text}" does not end in a slash.`, {
      guidance: `Write "${text}/", or name the one key "${text}": a bare prefix would also take keys of "${text}2".`,
      context: { prefix: text },
    });
  }
  return encodeText(text);
}

/** UTF-8 bytes. */
export function encodeText(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** The text of a key, for people: bytes that are no UTF-8 are shown as `\xNN`. */
export function showKey(key: Uint8Array): string {
  const text = decodeText(key);
  if (text !== undefined) return text;
  return [...key]
    .map((byte) =>
      byte >= 0x20 && byte < 0x7f
        ? String.fromCodePoint(byte)
        : `\\x${byte.toString(16).padStart(2, "0")}`,
    )
    .join("");
}

/** The text of UTF-8 bytes; undefined if they are none. */
export function decodeText(source: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(source);
  } catch {
    return undefined;
  }
}

/** Bytes as the gateway wants them. */
export function encodeBytes(source: Uint8Array): string {
  return Buffer.from(source.buffer, source.byteOffset, source.byteLength).toString("base64");
}

/** A transaction in the gateway's words. */
export function encodeTransaction(transaction: EtcdTransaction): object {
  return {
    compare: (transaction.compare ?? []).map(encodeCompare),
    success: transaction.writes.map((write) =>
      "put" in write
        ? { request_put: { key: encodeBytes(write.put), value: encodeBytes(write.value) } }
        : {
            request_delete_range: {
              key: encodeBytes(write.delete),
              ...(write.rangeEnd === undefined ? {} : { range_end: encodeBytes(write.rangeEnd) }),
            },
          },
    ),
  };
}

function encodeCompare(compare: EtcdCompare): object {
  const key = encodeBytes(compare.key);
  if ("value" in compare) {
    return { key, target: "VALUE", result: "EQUAL", value: encodeBytes(compare.value) };
  }
  if ("version" in compare) {
    return { key, target: "VERSION", result: "EQUAL", version: compare.version.toString() };
  }
  const mod_revision = compare.modRevision.toString();
  return { key, target: "MOD", result: "EQUAL", mod_revision };
}

/** About what a transaction takes in etcd's own encoding; errs to the larger side. */
export function sizeOfTransaction(transaction: EtcdTransaction): number {
  const overheadBytes = 32;
  const compares = transaction.compare ?? [];
  const compareBytes = compares.map(
    (compare) =>
      overheadBytes + compare.key.length + ("value" in compare ? compare.value.length : 0),
  );
  const writeBytes = transaction.writes.map((write) =>
    "put" in write
      ? overheadBytes + write.put.length + write.value.length
      : overheadBytes + write.delete.length + (write.rangeEnd?.length ?? 0),
  );
  return [...compareBytes, ...writeBytes].reduce((sum, size) => sum + size, 0);
}
