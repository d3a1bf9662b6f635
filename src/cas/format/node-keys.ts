/**
 * The two keys that every node of an encrypted repository has (docs/format.md section 9), in memory
 * and as the text of a node key file: the id key makes chunk ids, the metadata key seals what nodes
 * must read of each other. Neither opens a stored file.
 */
import { hkdfSync } from "node:crypto";
import type { Random } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { sha256, toHex } from "../../base/hex.ts";

/** Bytes of every key here. */
export const KEY_SIZE_BYTES = 32;

/** What a node key file holds. */
export type NodeKeys = {
  readonly idKey: Uint8Array;
  readonly metadataKey: Uint8Array;
};

const FILE_PREFIX = "ASTACUS-NODE-KEY-1-";
const CHECK_SIZE_BYTES = 4;
const NO_SALT = new Uint8Array(0);

/** Draws node keys for a new repository. */
export function drawNodeKeys(random: Random): NodeKeys {
  return { idKey: random.bytes(KEY_SIZE_BYTES), metadataKey: random.bytes(KEY_SIZE_BYTES) };
}

/** What the header says of the node keys, as hex: it tells other keys apart and nothing else. */
export function fingerprintOf(keys: NodeKeys): string {
  return toHex(deriveKey(joined(keys), NO_SALT, "astacus node keys"));
}

/**
 * The text of a node key file.
 *
 * @example
 * await writeFile(path, formatNodeKeys(drawNodeKeys(random)));
 */
export function formatNodeKeys(keys: NodeKeys): string {
  const bytes = joined(keys);
  const check = sha256(bytes).subarray(0, CHECK_SIZE_BYTES);
  const text = Buffer.concat([bytes, check]).toString("base64url");
  return (
    `# Node keys of an encrypted Astacus repository, for every node of it and nobody else.\n` +
    `# They open no stored file, and without them no backup can be found: keep a copy elsewhere.\n` +
    `# fingerprint: ${fingerprintOf(keys)}\n${FILE_PREFIX}${text}\n`
  );
}

/** The keys in the text of a node key file; `where` names it in messages. */
export function parseNodeKeys(text: string, where: string): NodeKeys {
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const [line, ...more] = lines.filter((one) => one !== "" && !one.startsWith("#"));
  const bytes =
    line?.startsWith(FILE_PREFIX) === true
      ? Buffer.from(line.slice(FILE_PREFIX.length), "base64url")
      : undefined;
  const isWhole = bytes?.length === 2 * KEY_SIZE_BYTES + CHECK_SIZE_BYTES && more.length === 0;
  const keys = isWhole ? new Uint8Array(bytes.subarray(0, 2 * KEY_SIZE_BYTES)) : undefined;
  const check = keys === undefined ? undefined : sha256(keys).subarray(0, CHECK_SIZE_BYTES);
  const isRight =
    check !== undefined && Buffer.compare(check, bytes!.subarray(2 * KEY_SIZE_BYTES)) === 0;
  if (keys === undefined || !isRight) {
    throw new AppError("config", `${where} is not a node key file.`, {
      guidance:
        "Copy it again from another node, whole and unchanged. A new one (`astacus key node-init`) " +
        "fits no repository that exists.",
      context: { path: where },
    });
  }
  return { idKey: keys.slice(0, KEY_SIZE_BYTES), metadataKey: keys.slice(KEY_SIZE_BYTES) };
}

/** HKDF-SHA-256 to 32 bytes. */
export function deriveKey(key: Uint8Array, salt: Uint8Array, info: string): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", key, salt, info, KEY_SIZE_BYTES));
}

function joined({ idKey, metadataKey }: NodeKeys): Uint8Array {
  return new Uint8Array(Buffer.concat([idKey, metadataKey]));
}
