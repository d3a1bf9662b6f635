/**
 * Sealing (docs/format.md section 9): what a repository's bytes look like when it is encrypted, and
 * nothing at all when it is plain. A `Sealer` has the node keys: it makes chunk ids, seals and opens
 * what nodes read of each other, and checks frames that it cannot open. Session keys are handed in
 * by whoever has them (src/cas/keys). A derived key is used for one content, or for the frames of one
 * pack, each with a nonce of its own.
 */
import { createCipheriv, createDecipheriv, createHmac } from "node:crypto";
import assert from "node:assert/strict";
import { fromHex, sha256, toHex } from "../../base/hex.ts";
import type { ByteReader, ByteWriter } from "./bytes.ts";
import { damagedError } from "./bytes.ts";
import { deriveKey, KEY_SIZE_BYTES } from "./node-keys.ts";
import type { NodeKeys } from "./node-keys.ts";
import type { PackKind } from "./pack-kind.ts";

/** A session key and the id that its key object has. */
export type SessionKey = { readonly id: string; readonly key: Uint8Array };

/** Where a session key lies, for whom it was wrapped there, and the hash of that object. */
export type StoredKey = {
  readonly birth: number;
  readonly hash: string;
  readonly recipients: readonly string[];
};

/** The pack that a frame was first written to: which key it is under, and the salt of it. */
export type FrameOrigin = {
  readonly kind: PackKind;
  /** Id of the session key; undefined for the metadata key. */
  readonly session: string | undefined;
  readonly salt: Uint8Array;
};

/** What opens a frame, but for the key. */
export type FrameSeal = { readonly origin: FrameOrigin; readonly number: number };

/** What packs are sealed with; a worker gets a copy. */
export type SealKeys = NodeKeys & { readonly repository: string };

/** How a builder seals its frames: under a session key, or under the metadata key. */
export type FrameSealing = { readonly sealer: Sealer; readonly session: SessionKey | undefined };

/** Objects that are sealed whole. */
export type SealedKind = "log" | "checkpoint" | "index" | "manifest" | "directory";

/** Bytes that sealing adds to a frame. */
export const TAG_SIZE_BYTES = 16;

const SALT_SIZE_BYTES = 16;
const NONCE_SIZE_BYTES = 12;
const AAD_SIZE_BYTES = 37;
/** Key, nonce and associated data of one frame, as they cross threads. */
export const FRAME_KEY_SIZE_BYTES = KEY_SIZE_BYTES + NONCE_SIZE_BYTES + AAD_SIZE_BYTES;
/** "ASTSEAL0" */
const MAGIC = Uint8Array.of(0x41, 0x53, 0x54, 0x53, 0x45, 0x41, 0x4c, 0x30);
const NO_SALT = new Uint8Array(0);
const NO_NONCE = new Uint8Array(NONCE_SIZE_BYTES);
const NO_BYTES = new Uint8Array(0);
const KIND_NUMBERS = {
  data: 0,
  metadata: 1,
  log: 2,
  checkpoint: 3,
  index: 4,
  manifest: 5,
  directory: 6,
};
/** The cipher's output is memory of its own: small pieces of it are used again, large ones fault in. */
const SLICE_SIZE_BYTES = 64 * 1024;

/** The id of a session key, which its key object is named by. */
export function sessionIdOf(key: Uint8Array): string {
  return toHex(deriveKey(key, NO_SALT, "astacus session key"));
}

/**
 * The id of a chunk: its SHA-256, or HMAC-SHA-256 under the id key of an encrypted repository.
 *
 * @example
 * const id = chunkIdOf(bytes, sealer.keys?.idKey);
 */
export function chunkIdOf(
  bytes: Uint8Array,
  idKey: Uint8Array | undefined,
): Uint8Array<ArrayBuffer> {
  if (idKey === undefined) return sha256(bytes);
  return new Uint8Array(createHmac("sha256", idKey).update(bytes).digest());
}

/** The node's side of a repository: plain, or with node keys. */
export class Sealer {
  /** Undefined in a plain repository. */
  readonly keys: SealKeys | undefined;
  readonly #saltKey: Uint8Array;
  /** The last pack whose frames were checked. */
  #checked: { readonly salt: string; readonly key: Uint8Array } | undefined;

  constructor(keys: SealKeys | undefined) {
    this.keys = keys;
    this.#saltKey =
      keys === undefined ? NO_BYTES : deriveKey(keys.metadataKey, NO_SALT, "astacus salt");
  }

  get isPlain(): boolean {
    return this.keys === undefined;
  }

  chunkId(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
    return chunkIdOf(bytes, this.keys?.idKey);
  }

  /** True if the bytes are the chunk with this id. */
  isChunk(bytes: Uint8Array, id: Uint8Array): boolean {
    return Buffer.compare(this.chunkId(bytes), id) === 0;
  }

  /** An object as it is stored: equal content gives equal bytes. As it is in a plain repository. */
  sealObject(
    kind: SealedKind,
    plain: Uint8Array<ArrayBuffer>,
    session?: SessionKey,
  ): Uint8Array<ArrayBuffer> {
    if (this.keys === undefined) return plain;
    assert.equal(session !== undefined, kind === "manifest");
    const hmac = createHmac("sha256", this.#saltKey);
    const digest = hmac.update(Uint8Array.of(KIND_NUMBERS[kind])).update(plain).digest();
    const salt = new Uint8Array(digest.subarray(0, SALT_SIZE_BYTES));
    const id = session === undefined ? NO_BYTES : fromHex(session.id);
    const start = MAGIC.length + id.length + SALT_SIZE_BYTES;
    const out = new Uint8Array(start + plain.length + TAG_SIZE_BYTES);
    out.set(MAGIC, 0);
    out.set(id, MAGIC.length);
    out.set(salt, MAGIC.length + id.length);
    const key = deriveKey(session?.key ?? this.keys.metadataKey, salt, "astacus object");
    const aad = associatedData(this.keys.repository, KIND_NUMBERS[kind], salt, 0);
    encryptInto(out, start, plain, { key, nonce: NO_NONCE, aad });
    return out;
  }

  /** What `sealObject` was given; AppError `damaged` that names `what` if it is anything else. */
  openObject(kind: SealedKind, stored: Uint8Array, what: string, session?: SessionKey): Uint8Array {
    if (this.keys === undefined) return stored;
    const idSizeBytes = kind === "manifest" ? KEY_SIZE_BYTES : 0;
    const start = MAGIC.length + idSizeBytes + SALT_SIZE_BYTES;
    if (!isSealed(stored) || stored.length < start + TAG_SIZE_BYTES) {
      throw damagedError(what, "is not sealed as it should be");
    }
    const salt = stored.subarray(start - SALT_SIZE_BYTES, start);
    assert.equal(session !== undefined, kind === "manifest");
    const key = deriveKey(session?.key ?? this.keys.metadataKey, salt, "astacus object");
    const aad = associatedData(this.keys.repository, KIND_NUMBERS[kind], salt, 0);
    return decrypt(stored.subarray(start), { key, nonce: NO_NONCE, aad }, what);
  }

  /** The checksum of a stored frame, which nodes check without opening it. */
  frameChecksum(stored: Uint8Array, { origin, number }: FrameSeal): Uint8Array {
    assert(this.keys !== undefined);
    const salt = toHex(origin.salt);
    if (this.#checked?.salt !== salt) {
      const key = deriveKey(this.keys.metadataKey, origin.salt, "astacus checksum");
      this.#checked = { salt, key };
    }
    const cipher = createCipheriv("aes-256-gcm", this.#checked.key, nonceOf(number));
    cipher.setAAD(stored);
    cipher.final();
    return new Uint8Array(cipher.getAuthTag());
  }

  /** The key of all frames of an origin, of the session key that it names or the metadata key. */
  frameKey(origin: FrameOrigin, session: Uint8Array | undefined): Uint8Array {
    assert(this.keys !== undefined);
    assert.equal(origin.session === undefined, session === undefined);
    return deriveKey(session ?? this.keys.metadataKey, origin.salt, "astacus frame");
  }

  /** Key, nonce and associated data of one frame, in columns. */
  frameOpening({ origin, number }: FrameSeal, key: Uint8Array): Uint8Array<ArrayBuffer> {
    assert(this.keys !== undefined);
    const opening = new Uint8Array(FRAME_KEY_SIZE_BYTES);
    opening.set(key, 0);
    opening.set(nonceOf(number), KEY_SIZE_BYTES);
    const kind = KIND_NUMBERS[origin.kind];
    const aad = associatedData(this.keys.repository, kind, origin.salt, number);
    opening.set(aad, KEY_SIZE_BYTES + NONCE_SIZE_BYTES);
    return opening;
  }
}

/** The sealer of plain repositories. */
export const PLAIN_SEALER = new Sealer(undefined);

/** True if bytes begin as sealed objects do. */
export function isSealed(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes.subarray(0, MAGIC.length), MAGIC) === 0;
}

/** The id of the session key that a sealed manifest is under; AppError `damaged` if it says none. */
export function sessionOfManifest(stored: Uint8Array, what: string): string {
  const end = MAGIC.length + KEY_SIZE_BYTES;
  if (!isSealed(stored) || stored.length < end) {
    throw damagedError(what, "is not sealed as it should be");
  }
  return toHex(stored.subarray(MAGIC.length, end));
}

/** Seals the frames of one pack that is being written. */
export class PackSealer {
  readonly origin: FrameOrigin;
  readonly #sealer: Sealer;
  readonly #key: Uint8Array;

  constructor({ sealer, session }: FrameSealing, kind: PackKind, salt: Uint8Array) {
    this.origin = { kind, session: session?.id, salt };
    this.#sealer = sealer;
    this.#key = sealer.frameKey(this.origin, session?.key);
  }

  /** Writes `plain` (which may lie there already) sealed to `target`; the frame's row without it. */
  seal(
    target: Uint8Array,
    plain: Uint8Array,
    number: number,
  ): { readonly storedLength: number; readonly checksum: Uint8Array; readonly seal: FrameSeal } {
    const seal = { origin: this.origin, number };
    const parts = splitOpening(this.#sealer.frameOpening(seal, this.#key));
    encryptInto(target, 0, plain, parts);
    const storedLength = plain.length + TAG_SIZE_BYTES;
    const checksum = this.#sealer.frameChecksum(target.subarray(0, storedLength), seal);
    return { storedLength, checksum, seal };
  }
}

/** The bytes that were sealed as a frame, still compressed; `opening` is one of `frameOpening`. */
export function openFrame(stored: Uint8Array, opening: Uint8Array, what: string): Uint8Array {
  if (stored.length < TAG_SIZE_BYTES) throw damagedError(what, "is too short for a sealed frame");
  return decrypt(stored, splitOpening(opening), what);
}

/** The different origins of frames, in the order of their first use. */
export function originsOf(frames: readonly { readonly seal?: FrameSeal | undefined }[]): {
  readonly origins: readonly FrameOrigin[];
  readonly numberOf: (origin: FrameOrigin) => number;
} {
  const known = new Map<FrameOrigin, number>();
  const byName = new Map<string, number>();
  const origins: FrameOrigin[] = [];
  for (const { seal } of frames) {
    if (seal === undefined || known.has(seal.origin)) continue;
    const name = `${seal.origin.session ?? ""}/${toHex(seal.origin.salt)}`;
    const number = byName.get(name) ?? origins.length;
    if (number === origins.length) origins.push(seal.origin);
    byName.set(name, number);
    known.set(seal.origin, number);
  }
  return { origins, numberOf: (origin) => known.get(origin)! };
}

/** Writes the table of origins of a pack. */
export function encodeOrigins(writer: ByteWriter, origins: readonly FrameOrigin[]): void {
  writer.varint(origins.length);
  for (const { session, salt } of origins) {
    writer.u8(session === undefined ? 0 : 1);
    if (session !== undefined) writer.raw(fromHex(session));
    writer.raw(salt);
  }
}

/** Reads the table of origins of a pack of this kind. */
export function decodeOrigins(reader: ByteReader, kind: PackKind): FrameOrigin[] {
  const origins: FrameOrigin[] = [];
  for (let left = reader.varint(); left > 0; left -= 1) {
    const of = reader.u8();
    if (of > 1) throw reader.damaged("has frames under an unknown kind of key");
    const session = of === 0 ? undefined : toHex(reader.raw(KEY_SIZE_BYTES));
    origins.push({ kind, session, salt: new Uint8Array(reader.raw(SALT_SIZE_BYTES)) });
  }
  return origins;
}

/** Reads a frame's reference to the table of origins. */
export function decodeFrameSeal(reader: ByteReader, origins: readonly FrameOrigin[]): FrameSeal {
  const origin = origins[reader.varint()];
  const number = reader.varint();
  if (origin === undefined || number > 0xffff_ffff) {
    throw reader.damaged("has a frame of an origin that it does not name");
  }
  return { origin, number };
}

type Parts = { readonly key: Uint8Array; readonly nonce: Uint8Array; readonly aad: Uint8Array };

function splitOpening(opening: Uint8Array): Parts {
  const aadStart = KEY_SIZE_BYTES + NONCE_SIZE_BYTES;
  return {
    key: opening.subarray(0, KEY_SIZE_BYTES),
    nonce: opening.subarray(KEY_SIZE_BYTES, aadStart),
    aad: opening.subarray(aadStart),
  };
}

/** The plain bytes may lie where the sealed ones go. */
function encryptInto(target: Uint8Array, offset: number, plain: Uint8Array, parts: Parts): void {
  const cipher = createCipheriv("aes-256-gcm", parts.key, parts.nonce);
  cipher.setAAD(parts.aad);
  for (let start = 0; start < plain.length; start += SLICE_SIZE_BYTES) {
    const piece = cipher.update(plain.subarray(start, start + SLICE_SIZE_BYTES));
    target.set(piece, offset + start);
    freePiece(piece);
  }
  cipher.final();
  target.set(cipher.getAuthTag(), offset + plain.length);
}

/** The cipher's output has memory of its own, a byte longer than it is; kept, it costs page faults. */
function freePiece({ buffer, byteOffset, length }: Uint8Array): void {
  const isOwn = byteOffset === 0 && buffer.byteLength - length <= 16 && length > 16;
  if (isOwn && buffer instanceof ArrayBuffer) buffer.transfer(0);
}

function decrypt(sealed: Uint8Array, parts: Parts, what: string): Uint8Array {
  const end = sealed.length - TAG_SIZE_BYTES;
  const decipher = createDecipheriv("aes-256-gcm", parts.key, parts.nonce);
  decipher.setAAD(parts.aad);
  decipher.setAuthTag(sealed.subarray(end));
  const plain = decipher.update(sealed.subarray(0, end));
  try {
    decipher.final();
  } catch {
    throw damagedError(what, "does not open with its key: it is not what was sealed");
  }
  return new Uint8Array(plain.buffer, plain.byteOffset, plain.length);
}

function nonceOf(number: number): Uint8Array {
  const nonce = new Uint8Array(NONCE_SIZE_BYTES);
  new DataView(nonce.buffer).setUint32(0, number, true);
  return nonce;
}

function associatedData(
  repository: string,
  kind: number,
  salt: Uint8Array,
  number: number,
): Uint8Array {
  const bytes = new Uint8Array(AAD_SIZE_BYTES);
  bytes.set(fromHex(repository), 0);
  bytes[16] = kind;
  bytes.set(salt, 17);
  new DataView(bytes.buffer).setUint32(33, number, true);
  return bytes;
}
