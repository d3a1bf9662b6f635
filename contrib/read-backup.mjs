#!/usr/bin/env node
/* oxlint-disable no-console, max-lines -- a program of one file, to be copied anywhere */
/**
 * Reads the backups in a directory site by docs/format.md alone. It shares no code with Astacus, so
 * that it checks the page as much as the site, and is the way back when nothing else runs. It writes
 * nothing into the site and believes nothing: every entry, segment, manifest, frame and chunk is
 * checked against its hash. Needs Node 22.15 or Bun (older Nodes: the `zstd` program).
 *
 *   node read-backup.mjs list SITE
 *   node read-backup.mjs verify SITE
 *   node read-backup.mjs restore SITE BACKUP TARGET [--node NODE]
 *
 * An encrypted repository needs --node-key FILE for all of them, and --identity FILE (of age, not
 * under a passphrase) to restore; `verify` without it opens what nodes can open, and checks the rest.
 *
 * BACKUP is an id, a name (the newest of that name) or `latest`. Files go to TARGET/NODE/VOLUME/…,
 * with --node to TARGET/VOLUME/…; nothing that exists there is overwritten. Modes and times are set,
 * owners when run by root; extended attributes are not.
 */
import { spawnSync } from "node:child_process";
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
} from "node:crypto";
import * as fs from "node:fs";
import * as zlib from "node:zlib";

const OBJECT_SIZE_MAX = 64 * 1024 * 1024;
const JSON_SIZE_MAX = 1024 * 1024 * 1024;
const FRAME_SIZE_MAX = 4 * 1024 * 1024;
const CACHE_SIZE = 64 * 1024 * 1024;
const FILE_TYPES = ["file", "directory", "symlink", "hardlink"];

/** What is wrong with a site, as a sentence. */
class Damage extends Error {}

// ── Bytes ────────────────────────────────────────────────────────────────────────────────────────

function sha256(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

function latin1(bytes) {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

/** Paths are bytes; people read UTF-8. */
function shown(path) {
  return Buffer.from(path, "latin1").toString("utf8");
}

/** Reads the primitives of section 1 and never past the end. */
class Reader {
  constructor(bytes, what) {
    this.bytes = bytes;
    this.what = what;
    this.at = 0;
  }

  get left() {
    return this.bytes.length - this.at;
  }

  damage(fault) {
    return new Damage(`${this.what}: ${fault} (at byte ${this.at})`);
  }

  raw(length) {
    if (length > this.left) throw this.damage("ends too early");
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  u8() {
    return this.raw(1)[0];
  }

  u32() {
    return this.raw(4).readUInt32LE(0);
  }

  varint() {
    let value = 0n;
    for (let shift = 0n; shift < 56n; shift += 7n) {
      const byte = this.u8();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte >= 0x80) continue;
      if (byte === 0 && shift > 0n) throw this.damage("a number is not in its shortest form");
      if (value >= 1n << 53n) throw this.damage("a number is too large");
      return Number(value);
    }
    throw this.damage("a number does not end");
  }

  zigzag() {
    const value = this.varint();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  hex(length) {
    return this.raw(length).toString("hex");
  }

  sized() {
    return this.raw(this.varint());
  }

  text() {
    return latin1(this.sized());
  }

  end() {
    if (this.left > 0) throw this.damage(`has ${this.left} bytes too many`);
  }
}

/** One zstd frame of at most `max` bytes of content. */
function unzstd(bytes, max, what) {
  try {
    if (zlib.zstdDecompressSync !== undefined) {
      return Buffer.from(zlib.zstdDecompressSync(bytes, { maxOutputLength: max + 1 }));
    }
    const run = spawnSync("zstd", ["-dcq"], { input: bytes, maxBuffer: max + 1 });
    if (run.error !== undefined) throw run.error;
    if (run.status !== 0) throw new Error(String(run.stderr).trim());
    return run.stdout;
  } catch (error) {
    throw new Damage(`${what}: does not decompress: ${error.message}`);
  }
}

function parseJson(bytes, what) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new Damage(`${what}: is not JSON: ${error.message}`);
  }
}

/** True if a relative path stays below its root. */
function isSafePath(path) {
  if (path.includes("\0")) return false;
  return path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}

// ── Encryption (section 9) ───────────────────────────────────────────────────────────────────────

const KINDS = { data: 0, metadata: 1, log: 2, checkpoint: 3, index: 4, manifest: 5, directory: 6 };
const NOTHING = Buffer.alloc(0);

/** What the repository needs an identity for, and none was given. */
class Closed extends Damage {}

function derive(key, salt, info) {
  return Buffer.from(hkdfSync("sha256", key, salt, info, 32));
}

/** AES-256-GCM with the tag behind the ciphertext. */
function openSealed(sealed, { key, nonce, aad }, what) {
  const end = sealed.length - 16;
  if (end < 0) throw new Damage(`${what}: is too short to be sealed`);
  const decipher = createDecipheriv("aes-256-gcm", key, nonce);
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(end));
  const plain = decipher.update(sealed.subarray(0, end));
  try {
    decipher.final();
  } catch {
    throw new Damage(`${what}: does not open with its key`);
  }
  return Buffer.from(plain.buffer, plain.byteOffset, plain.length);
}

function nonceOf(number) {
  const nonce = Buffer.alloc(12);
  nonce.writeUInt32LE(number);
  return nonce;
}

/** The keys of an encrypted repository, as far as they were given. */
class Vault {
  constructor(nodeKeyText, identities) {
    const line = nodeKeyText.split("\n").find((one) => one.startsWith("ASTACUS-NODE-KEY-1-")) ?? "";
    const bytes = Buffer.from(line.slice(19).trim(), "base64url");
    if (bytes.length !== 68 || sha256(bytes.subarray(0, 64)).slice(0, 8) !== hexOf(bytes, 64)) {
      throw new Damage("that is no node key file");
    }
    this.idKey = bytes.subarray(0, 32);
    this.metadataKey = bytes.subarray(32, 64);
    this.fingerprint = derive(bytes.subarray(0, 64), NOTHING, "astacus node keys").toString("hex");
    this.identities = identities;
    this.repository = NOTHING;
    /** Session key objects by id, as the log names them; and the keys that were opened. */
    this.births = new Map();
    this.sessions = new Map();
  }

  aad(kind, salt, number) {
    const numberBytes = Buffer.alloc(4);
    numberBytes.writeUInt32LE(number);
    return Buffer.concat([this.repository, Buffer.of(kind), salt, numberBytes]);
  }

  object(kind, stored, what, key = this.metadataKey) {
    const at = kind === "manifest" ? 40 : 8;
    if (latin1(stored.subarray(0, 8)) !== "ASTSEAL0") throw new Damage(`${what}: is not sealed`);
    const salt = stored.subarray(at, at + 16);
    const aad = this.aad(KINDS[kind], salt, 0);
    const parts = { key: derive(key, salt, "astacus object"), nonce: Buffer.alloc(12), aad };
    return openSealed(stored.subarray(at + 16), parts, what);
  }

  /** The key of a session, from its key object. */
  session(site, id) {
    const known = this.sessions.get(id);
    if (known !== undefined) return known;
    const name = `key/${id}-${this.births.get(id)}`;
    if (this.identities.length === 0) throw new Closed(`${name}: needs --identity FILE`);
    const key = openAge(site.mustGet(name), this.identities);
    if (key === undefined) throw new Closed(`${name}: is for another identity`);
    if (derive(key, NOTHING, "astacus session key").toString("hex") !== id) {
      throw new Damage(`${name}: holds another key`);
    }
    this.sessions.set(id, key);
    return key;
  }

  frame(site, stored, { seal }, what) {
    const { session, salt, kind, number } = seal;
    const key = session === undefined ? this.metadataKey : this.session(site, session);
    const parts = { key: derive(key, salt, "astacus frame"), nonce: nonceOf(number) };
    return openSealed(stored, { ...parts, aad: this.aad(kind, salt, number) }, what);
  }

  checksum(stored, { seal }) {
    const key = derive(this.metadataKey, seal.salt, "astacus checksum");
    const cipher = createCipheriv("aes-256-gcm", key, nonceOf(seal.number));
    cipher.setAAD(stored);
    cipher.final();
    return cipher.getAuthTag().toString("hex");
  }
}

/** Of an encrypted repository; undefined for a plain one. */
let vault;

function hexOf(bytes, start) {
  return bytes.subarray(start).toString("hex");
}

function chunkHash(bytes) {
  if (vault === undefined) return sha256(bytes);
  return createHmac("sha256", vault.idKey).update(bytes).digest("hex");
}

/** The origins of a pack's frames. */
function readOrigins(reader, kind) {
  const origins = [];
  for (let left = reader.varint(); left > 0; left--) {
    const session = reader.u8() === 0 ? undefined : reader.hex(32);
    origins.push({ session, salt: reader.raw(16), kind });
  }
  return origins;
}

function readSeal(reader, origins) {
  const origin = origins[reader.varint()];
  if (origin === undefined) throw reader.damage("has a frame of an unknown origin");
  return { ...origin, number: reader.varint() };
}

/** The lines of an identity file of age, as X25519 keys. */
function parseIdentities(text) {
  const lines = text.split("\n").map((line) => line.trim());
  return lines.filter((line) => line.startsWith("AGE-SECRET-KEY-1")).map(bech32Bytes);
}

function bech32Bytes(text) {
  const digits = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
  const data = text.toLowerCase().slice(text.lastIndexOf("1") + 1, -6);
  let bits = 0;
  let value = 0;
  const bytes = [];
  for (const digit of data) {
    value = ((value << 5) | digits.indexOf(digit)) & 0xfff;
    bits += 5;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push((value >> bits) & 0xff);
  }
  return Buffer.from(bytes);
}

/** A block of ChaCha20 (RFC 8439): not every runtime has it, and key objects are small. */
function chachaBlock(key, nonce, counter) {
  const start = new Uint32Array(16);
  start.set([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]);
  for (let word = 0; word < 8; word++) start[4 + word] = key.readUInt32LE(4 * word);
  start[12] = counter;
  for (let word = 0; word < 3; word++) start[13 + word] = nonce.readUInt32LE(4 * word);
  const state = start.slice();
  const mix = (into, by, turned, bits) => {
    state[into] += state[by];
    const value = state[turned] ^ state[into];
    state[turned] = (value << bits) | (value >>> (32 - bits));
  };
  const quarter = (a, b, c, d) => {
    mix(a, b, d, 16);
    mix(c, d, b, 12);
    mix(a, b, d, 8);
    mix(c, d, b, 7);
  };
  for (let round = 0; round < 10; round++) {
    for (let column = 0; column < 4; column++) quarter(column, column + 4, column + 8, column + 12);
    for (let column = 0; column < 4; column++) {
      quarter(column, 4 + ((column + 1) % 4), 8 + ((column + 2) % 4), 12 + ((column + 3) % 4));
    }
  }
  const block = Buffer.alloc(64);
  for (let word = 0; word < 16; word++)
    block.writeUInt32LE((state[word] + start[word]) >>> 0, 4 * word);
  return block;
}

function poly1305(key, text) {
  const number = (bytes) => BigInt(`0x${Buffer.from(bytes.toReversed()).toString("hex")}`);
  const r = number(key.subarray(0, 16)) & 0x0ffffffc0ffffffc0ffffffc0fffffffn;
  let sum = 0n;
  for (let at = 0; at < text.length; at += 16) {
    const block = Buffer.concat([text.subarray(at, at + 16), Buffer.of(1)]);
    sum = ((sum + number(block)) * r) % ((1n << 130n) - 5n);
  }
  const tag = BigInt.asUintN(128, sum + number(key.subarray(16, 32)));
  return Buffer.from(Buffer.from(tag.toString(16).padStart(32, "0"), "hex").toReversed());
}

/** ChaCha20-Poly1305 without associated data; undefined if the key does not fit. */
function chacha(sealed, key, nonce) {
  const text = sealed.subarray(0, -16);
  const lengths = Buffer.alloc(16);
  lengths.writeUInt32LE(text.length, 8);
  const padding = Buffer.alloc((16 - (text.length % 16)) % 16);
  const tag = poly1305(chachaBlock(key, nonce, 0), Buffer.concat([text, padding, lengths]));
  if (Buffer.compare(tag, sealed.subarray(-16)) !== 0) return undefined;
  const plain = Buffer.from(text);
  for (let at = 0; at < plain.length; at++) {
    plain[at] ^= chachaBlock(key, nonce, 1 + Math.floor(at / 64))[at % 64];
  }
  return plain;
}

/** The content of a small age file (one chunk) for an X25519 recipient; undefined if no key fits. */
function openAge(file, identities) {
  const text = latin1(file);
  const macAt = text.indexOf("\n---");
  const bodyAt = text.indexOf("\n", macAt + 1) + 1;
  const stanzas = [...text.slice(0, macAt).matchAll(/^-> X25519 (\S+)\n(\S+)$/gm)];
  for (const secret of identities) {
    const privateKey = createPrivateKey({
      key: Buffer.concat([Buffer.from("302e020100300506032b656e04220420", "hex"), secret]),
      format: "der",
      type: "pkcs8",
    });
    const own = createPublicKey(privateKey).export({ format: "der", type: "spki" }).subarray(-32);
    for (const [, shareText, wrappedText] of stanzas) {
      const share = Buffer.from(shareText, "base64");
      const publicKey = createPublicKey({
        key: Buffer.concat([Buffer.from("302a300506032b656e032100", "hex"), share]),
        format: "der",
        type: "spki",
      });
      const secretShared = diffieHellman({ privateKey, publicKey });
      const salt = Buffer.concat([share, own]);
      const wrap = derive(secretShared, salt, "age-encryption.org/v1/X25519");
      const fileKey = chacha(Buffer.from(wrappedText, "base64"), wrap, Buffer.alloc(12));
      if (fileKey === undefined) continue;
      const payload = derive(fileKey, file.subarray(bodyAt, bodyAt + 16), "payload");
      const last = Buffer.concat([Buffer.alloc(11), Buffer.of(1)]);
      return chacha(file.subarray(bodyAt + 16), payload, last);
    }
  }
  return undefined;
}

// ── Site and log (sections 2 and 3) ──────────────────────────────────────────────────────────────

/** A directory with objects in it. */
class Site {
  constructor(root) {
    this.root = root;
  }

  get(key) {
    const path = `${this.root}/${key}`;
    const stat = fs.statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return undefined;
    if (stat.size > OBJECT_SIZE_MAX) throw new Damage(`${key}: is larger than an object may be`);
    return fs.readFileSync(path);
  }

  mustGet(key) {
    const bytes = this.get(key);
    if (bytes === undefined) throw new Damage(`${key}: is not there`);
    return bytes;
  }

  /** An object whose name holds its hash. */
  mustGetHashed(key, hash) {
    const bytes = this.mustGet(key);
    if (sha256(bytes) !== hash) throw new Damage(`${key}: does not match its name`);
    return bytes;
  }

  /** A part of an object. */
  range(key, offset, length) {
    let handle;
    try {
      handle = fs.openSync(`${this.root}/${key}`, "r");
    } catch (error) {
      if (error.code === "ENOENT") throw new Damage(`${key}: is not there`);
      throw error;
    }
    try {
      const bytes = Buffer.alloc(length);
      const read = fs.readSync(handle, bytes, 0, length, offset);
      if (read !== length) throw new Damage(`${key}: is too short`);
      return bytes;
    } finally {
      fs.closeSync(handle);
    }
  }
}

function logKey(sequence) {
  return `log/${String(sequence).padStart(12, "0")}`;
}

/** Replays the whole log: no checkpoint is needed, entries are never removed. */
function readLog(site) {
  const headerBytes = site.mustGet("astacus-repository");
  const header = parseJson(headerBytes, "astacus-repository");
  if (header.format !== "astacus" || header.version !== 1) {
    throw new Damage("astacus-repository: is not of format version 1");
  }
  if (header.hash !== "sha256") throw new Damage(`hash ${header.hash} is not known here`);
  if (header.encryption === null) vault = undefined;
  else if (vault === undefined) throw new Damage("the repository is encrypted: --node-key FILE");
  else if (header.encryption.scheme !== "astacus-seal-1") throw new Damage("unknown encryption");
  else if (header.encryption.nodeKeys !== vault.fingerprint) throw new Damage("other node keys");
  else vault.repository = Buffer.from(header.repository, "hex");
  const state = {
    header,
    sequence: 0,
    floor: 0,
    backups: new Map(),
    everIds: new Set(),
    pins: new Map(),
    keeps: new Map(),
    segments: new Map(),
    retired: new Set(),
    deleted: new Map(),
    repairs: new Map(),
    closed: false,
  };
  let previous = sha256(headerBytes);
  for (let sequence = 1; ; sequence++) {
    const bytes = site.get(logKey(sequence));
    if (bytes === undefined) break;
    const outer = parseJson(bytes, logKey(sequence));
    const entry = vault === undefined ? outer : openEntry(outer, logKey(sequence));
    if (entry.v !== 1 || entry.sequence !== sequence || entry.previous !== previous) {
      throw new Damage(`${logKey(sequence)}: does not follow the entry before it`);
    }
    if (sequence === 1 && (entry.kind !== "note" || entry.body.header !== sha256(headerBytes))) {
      throw new Damage(`${logKey(1)}: does not carry the hash of the header`);
    }
    applyEntry(state, entry);
    state.sequence = sequence;
    previous = sha256(bytes);
  }
  if (state.sequence === 0) throw new Damage("the log is empty");
  const highest = fs
    .readdirSync(`${site.root}/log`)
    .filter((n) => /^\d{12}$/.test(n))
    .toSorted()
    .at(-1);
  if (Number(highest) !== state.sequence) {
    throw new Damage(`${logKey(state.sequence + 1)}: is missing, and entries come after it`);
  }
  return state;
}

function openEntry(outer, what) {
  const stored = Buffer.from(outer.sealed ?? "", "base64");
  const entry = parseJson(vault.object("log", stored, what), what);
  const isSame = entry.sequence === outer.sequence && entry.previous === outer.previous;
  if (isSame) return entry;
  throw new Damage(`${what}: what is sealed in it belongs to another place`);
}

/** The first object of a key is as good as any later one. */
function addKeys(keys = []) {
  for (const { id, birth } of keys) if (!vault?.births.has(id)) vault?.births.set(id, birth);
}

function applyEntry(state, entry) {
  if (state.closed) return;
  const effect = EFFECTS[entry.kind];
  if (effect === undefined) {
    if (entry.reader > 0) throw new Damage(`${logKey(entry.sequence)}: needs a newer reader`);
    return;
  }
  const fault = birthsFault(state, entry) ?? VOID[entry.kind]?.(state, entry.body, entry);
  if (fault === undefined) effect(state, entry.body, entry);
}

/** The births of what a repair brings to another place. */
function repairedBirths(state, objects) {
  const isThere = ({ kind, id, birth }) => {
    if (kind === "pack") return state.repairs.get(id) === birth;
    if (kind === "index") return state.segments.get(id)?.birth === birth;
    return manifestsOf(state, id).every((manifest) => manifest.birth === birth);
  };
  return objects.filter((object) => !isThere(object)).map(({ birth }) => birth);
}

function manifestsOf(state, id) {
  return [...state.backups.values()]
    .map(({ manifest }) => manifest)
    .filter((manifest) => manifest.id === id);
}

/** Clause 2 of "Void". */
function birthsFault(state, { kind, body, births, sequence }) {
  const refs = [
    ...(body.segments ?? []),
    ...(kind === "merge" && body.output ? [body.output] : []),
  ];
  const named = refs.filter(({ id }) => !state.segments.has(id)).map(({ birth }) => birth);
  if (kind === "backup") {
    const known = state.backups.get(body.backup)?.manifest;
    const { id, birth } = body.manifest;
    if (known?.id !== id || known.birth !== birth) named.push(birth);
  }
  if (kind === "repair") named.push(...repairedBirths(state, body.objects));
  if (births === null) return named.length === 0 ? undefined : "no births";
  const [lowest, highest] = births;
  if (named.length === 0 || named.some((birth) => birth < lowest || birth > highest))
    return "births";
  if (lowest <= state.floor || highest >= sequence || lowest > highest) return "births";
  return undefined;
}

function isListed(state, id) {
  const backup = state.backups.get(id);
  return backup !== undefined && backup.forgotten === undefined;
}

/** Clauses 3 to 5 of "Void": a text is a reason to ignore the entry. */
const VOID = {
  backup(state, body) {
    if (!state.everIds.has(body.backup)) return undefined;
    if (isListed(state, body.backup) || body.overrides === undefined) return "had before";
    const forgotten = state.backups.get(body.backup)?.forgotten;
    if (forgotten === undefined || body.overrides.site !== state.header.site) return undefined;
    return body.overrides.sequence === forgotten.sequence ? undefined : "another forget";
  },
  forget(state, body) {
    // One that another site forgot for all may name what was never here.
    const isCarried = body.scope === "all" && body.origin !== undefined;
    const isRight = (id) => isListed(state, id) || (isCarried && !state.everIds.has(id));
    return body.backups.every(isRight) ? undefined : "no";
  },
  undo: (state, body) =>
    state.backups.get(body.backup)?.forgotten?.sequence === body.forget ? undefined : "no",
  pin: (state, body) => (state.backups.has(body.backup) ? undefined : "no"),
  delete(state, body, entry) {
    if (body.floor < state.floor || body.floor > entry.sequence - 1) return "floor";
    const pinned = new Set(state.pins.values());
    for (const id of body.backups) {
      const backup = state.backups.get(id);
      if (backup?.forgotten === undefined || pinned.has(id)) return "not forgotten";
      if (backup.manifest.birth > body.floor) return "floor";
    }
    return body.packs.every((id) => state.retired.has(id)) ? undefined : "not retired";
  },
  merge(state, body) {
    const kept = new Set([...state.keeps.values()].flat());
    const isFree = (id) => state.segments.has(id) && !kept.has(id);
    return body.inputs.every(isFree) ? undefined : "inputs";
  },
  repack: (state, body) =>
    body.segments.some(({ id }) => state.segments.has(id)) ? "current" : undefined,
  // Roles say where operations start, which is nothing to a reader: this one keeps none.
  repair(state, body) {
    const isHere = ({ kind, id }) =>
      kind === "pack" ||
      (kind === "index" ? state.segments.has(id) : manifestsOf(state, id).length > 0);
    return body.objects.every(isHere) ? undefined : "not here";
  },
};

function makeCurrent(state, refs) {
  for (const ref of refs) if (!state.segments.has(ref.id)) state.segments.set(ref.id, ref);
}

const EFFECTS = {
  note() {},
  backup(state, body, entry) {
    state.backups.set(body.backup, { ...body, sequence: entry.sequence });
    state.everIds.add(body.backup);
    addKeys(body.keys);
    makeCurrent(state, body.segments);
    for (const pack of body.revived) state.retired.delete(pack);
    state.keeps.delete(entry.operation);
  },
  rekey(_state, body) {
    for (const { id, birth } of body.keys) vault?.births.set(id, birth);
  },
  keep(state, body, entry) {
    addKeys(body.keys);
    makeCurrent(state, body.segments);
    const before = state.keeps.get(entry.operation) ?? [];
    state.keeps.set(entry.operation, [...before, ...body.segments.map(({ id }) => id)]);
  },
  forget(state, body, entry) {
    for (const id of body.backups) {
      const backup = state.backups.get(id);
      if (backup === undefined) state.everIds.add(id);
      else backup.forgotten = { sequence: entry.sequence, reason: body.reason };
    }
  },
  undo(state, body) {
    delete state.backups.get(body.backup).forgotten;
    for (const pack of body.revived) state.retired.delete(pack);
  },
  retire(state, body) {
    for (const pack of body.packs) state.retired.add(pack);
  },
  delete(state, body) {
    state.floor = body.floor;
    for (const id of body.backups) state.backups.delete(id);
    for (const pack of body.packs) {
      state.retired.delete(pack);
      state.deleted.set(pack, body.floor);
      state.repairs.delete(pack);
    }
  },
  pin(state, body) {
    state.pins.set(body.pin, body.backup);
  },
  drop(state, body) {
    for (const operation of body.keeps) state.keeps.delete(operation);
    for (const pin of body.pins) state.pins.delete(pin);
  },
  merge(state, body) {
    if (body.output !== null) makeCurrent(state, [body.output]);
    for (const id of body.inputs) if (id !== body.output?.id) state.segments.delete(id);
    for (const pack of body.dropped) state.deleted.delete(pack);
  },
  repack(state, body) {
    makeCurrent(state, body.segments);
    for (const pack of body.from) state.retired.add(pack);
  },
  role() {},
  closed(state) {
    state.closed = true;
  },
  repair(state, body) {
    for (const { kind, id, birth } of body.objects) {
      if (kind === "pack") state.repairs.set(id, birth);
      else if (kind === "index") state.segments.set(id, { ...state.segments.get(id), birth });
      else for (const manifest of manifestsOf(state, id)) manifest.birth = birth;
    }
  },
};

// ── Packs and segments (sections 4 and 5) ────────────────────────────────────────────────────────

/** All current segments: packs by id, and the places of each chunk. */
function readIndex(site, state) {
  const packs = new Map();
  const chunks = new Map();
  for (const { id, birth } of state.segments.values()) {
    const key = `index/${id}-${birth}`;
    const stored = site.mustGetHashed(key, id);
    const bytes = vault === undefined ? stored : vault.object("index", stored, key);
    readSegment(new Reader(bytes, key), { state, packs, chunks });
  }
  return { packs, chunks };
}

function readSegment(reader, { state, packs, chunks }) {
  const magic = vault === undefined ? "ASTIDX0\n" : "ASTIDX1\n";
  if (latin1(reader.raw(8)) !== magic) throw reader.damage("is not an index segment");
  const packCount = reader.varint();
  const chunkCount = reader.varint();
  const own = [];
  for (let index = 0; index < packCount; index++) {
    const pack = readSegmentPack(reader);
    const isGone = pack.birth <= (state.deleted.get(pack.id) ?? -1);
    // Of two births of one pack the lower is right that was not deleted, and a repair stands above
    // both. The object that all places share is mended, since segments come in any order.
    const known = packs.get(pack.id);
    if (known === undefined) packs.set(pack.id, pack);
    else if (!isGone && (known.isGone || pack.birth < known.birth)) known.birth = pack.birth;
    const named = packs.get(pack.id);
    named.isGone = isGone && (known?.isGone ?? true);
    named.key = packKey(named.id, state.repairs.get(named.id) ?? named.birth);
    own.push(named);
  }
  for (let index = 0; index < chunkCount; index++) {
    const id = latin1(reader.raw(32));
    const pack = own[reader.varint()];
    const frame = pack?.frames[reader.varint()];
    const place = { pack, frame, offset: reader.varint(), length: reader.varint() };
    if (frame === undefined || place.offset + place.length > frame.rawLength) {
      throw reader.damage("names a place that is not there");
    }
    const known = chunks.get(id);
    if (known === undefined) chunks.set(id, [place]);
    else known.push(place);
  }
  reader.end();
}

function packKey(id, birth) {
  return `pack/${id.slice(0, 2)}/${id}-${birth}`;
}

function readSegmentPack(reader) {
  const id = reader.hex(32);
  const birth = reader.varint();
  const pack = { id, birth, size: reader.varint(), directoryLength: reader.varint() };
  const kind = reader.u8();
  const origins = vault === undefined ? undefined : readOrigins(reader, kind);
  const frames = [];
  const frameCount = reader.varint();
  let offset = 0;
  for (let index = 0; index < frameCount; index++) {
    const frame = { index, offset, ...readFrameLengths(reader) };
    if (origins !== undefined) frame.seal = readSeal(reader, origins);
    offset += frame.storedLength;
    frames.push(frame);
  }
  return { ...pack, kind, frames };
}

function readFrameLengths(reader) {
  const codec = reader.u8();
  const storedLength = reader.varint();
  const rawLength = reader.varint();
  if (codec > 1 || rawLength > FRAME_SIZE_MAX) throw reader.damage("has an impossible frame");
  const tagLength = vault === undefined ? 0 : 16;
  if (codec === 0 && storedLength !== rawLength + tagLength)
    throw reader.damage("has an impossible frame");
  return { codec, storedLength, rawLength };
}

/** The raw bytes of a frame; its checksum is in the pack's directory and not needed here. */
function openFrame(site, stored, frame, what) {
  const packed = frame.seal === undefined ? stored : vault.frame(site, stored, frame, what);
  const raw = frame.codec === 0 ? packed : unzstd(packed, frame.rawLength, what);
  if (raw.length !== frame.rawLength) throw new Damage(`${what}: has a wrong length`);
  return raw;
}

/** Hands out chunks, checked; keeps some decoded frames. */
class Chunks {
  constructor(site, index) {
    this.site = site;
    this.index = index;
    this.cache = new Map();
    this.cached = 0;
  }

  get(id, length) {
    const places = this.index.chunks.get(latin1(id)) ?? [];
    let damage = new Damage(`chunk ${id.toString("hex")}: is in no current segment`);
    for (const place of places) {
      try {
        const bytes = this.frame(place).subarray(place.offset, place.offset + place.length);
        if (chunkHash(bytes) === id.toString("hex") && bytes.length === length) return bytes;
        damage = new Damage(`${place.pack.key}: frame ${place.frame.index} is damaged`);
      } catch (error) {
        if (!(error instanceof Damage)) throw error;
        damage = error;
      }
    }
    throw damage;
  }

  frame({ pack, frame }) {
    const name = `${pack.key}: frame ${frame.index}`;
    const known = this.cache.get(name);
    if (known !== undefined) return known;
    const stored = this.site.range(pack.key, frame.offset, frame.storedLength);
    const raw = openFrame(this.site, stored, frame, name);
    this.cache.set(name, raw);
    this.cached += raw.length;
    for (const [oldest, bytes] of this.cache) {
      if (this.cached <= CACHE_SIZE || oldest === name) break;
      this.cache.delete(oldest);
      this.cached -= bytes.length;
    }
    return raw;
  }
}

/** Checks every byte of a pack against its name. */
function verifyPack(site, pack) {
  const bytes = site.mustGet(pack.key);
  const end = new Reader(bytes.subarray(-16), pack.key);
  const directoryLength = end.u32();
  if (end.u32() !== 0 || latin1(end.raw(8)) !== packMagic()) throw end.damage("has no trailer");
  if (bytes.length !== pack.size) throw end.damage("is not as long as the segment says");
  if (directoryLength !== pack.directoryLength) throw end.damage("has another directory");
  const stored = bytes.subarray(bytes.length - 16 - directoryLength, bytes.length - 16);
  const directory = vault === undefined ? stored : vault.object("directory", stored, pack.key);
  if (sha256(directory) !== pack.id) throw end.damage("has a directory that is not its name's");
  const reader = new Reader(directory, pack.key);
  if (reader.u8() !== (vault === undefined ? 0 : 1) || reader.u8() !== pack.kind)
    throw reader.damage("has an unknown kind");
  reader.raw(16);
  const origins = vault === undefined ? undefined : readOrigins(reader, pack.kind);
  if (reader.varint() !== pack.frames.length) throw reader.damage("has other frames");
  let offset = 0;
  for (let index = 0; index < pack.frames.length; index++) {
    const frame = readFrameLengths(reader);
    if (origins !== undefined) frame.seal = readSeal(reader, origins);
    verifyFrame(site, reader, bytes.subarray(offset, offset + frame.storedLength), frame);
    offset += frame.storedLength;
  }
  reader.end();
  if (offset + directoryLength + 16 !== bytes.length) throw reader.damage("has bytes between");
}

function packMagic() {
  return vault === undefined ? "ASTPACK0" : "ASTPACK1";
}

/** The raw bytes of a frame; undefined if nobody gave a key that opens it. */
function tryOpenFrame(site, stored, frame, what) {
  try {
    return openFrame(site, stored, frame, what);
  } catch (error) {
    if (error instanceof Closed) return undefined;
    throw error;
  }
}

function verifyFrame(site, reader, stored, frame) {
  const chunkCount = reader.varint();
  const hasChecksum = frame.seal !== undefined || frame.codec !== 0 || chunkCount !== 1;
  const checksum = () =>
    frame.seal === undefined ? sha256(stored).slice(0, 32) : vault.checksum(stored, frame);
  if (hasChecksum && reader.hex(16) !== checksum()) {
    throw reader.damage("has a frame that does not match its checksum");
  }
  const raw = tryOpenFrame(site, stored, frame, reader.what);
  let offset = 0;
  for (let index = 0; index < chunkCount; index++) {
    const id = reader.hex(32);
    const length = reader.varint();
    if (raw !== undefined && chunkHash(raw.subarray(offset, offset + length)) !== id)
      throw reader.damage("has a bad chunk");
    offset += length;
  }
  if (offset !== frame.rawLength) throw reader.damage("has a frame that its chunks do not fill");
}

// ── Trees, listings, manifests (sections 6 to 8) ─────────────────────────────────────────────────

/** The records of a tree in order. */
function* readTree(chunks, root, level) {
  const id = Buffer.isBuffer(root.id) ? root.id : Buffer.from(root.id, "hex");
  const reader = new Reader(chunks.get(id, root.length), `tree node ${id.toString("hex")}`);
  const ownLevel = reader.u8();
  if (level !== undefined && ownLevel !== level) throw reader.damage("is of another level");
  let count = 0;
  while (reader.left > 0) {
    const record = reader.sized();
    if (ownLevel === 0) {
      count += 1;
      yield record;
      continue;
    }
    const child = new Reader(record, reader.what);
    const place = { id: child.raw(32), length: child.varint(), count: child.varint() };
    count += place.count;
    yield* readTree(chunks, place, ownLevel - 1);
  }
  if (count !== root.count) throw reader.damage("does not hold as many records as it should");
}

/** A record of a file listing; the chunks of a file come one by one. */
function readFile(chunks, bytes, after) {
  const reader = new Reader(bytes, "file record");
  const file = { path: reader.text(), type: FILE_TYPES[reader.u8()], flags: reader.u8() };
  reader.what = `file record of ${shown(file.path)}`;
  if (file.type === undefined || file.flags > 1) throw reader.damage("is of an unknown type");
  if (!isSafePath(file.path)) throw reader.damage("leaves the volume");
  if (after !== undefined && file.path <= after) throw reader.damage("is not in order");
  Object.assign(file, { mode: reader.varint(), uid: reader.varint(), gid: reader.varint() });
  file.mtime = reader.zigzag() + reader.varint() / 1e9;
  file.xattrs = reader.varint();
  for (let index = 0; index < file.xattrs; index++) {
    reader.sized();
    reader.sized();
  }
  if (file.type === "file") Object.assign(file, readContent(chunks, reader));
  if (file.type === "symlink" || file.type === "hardlink") file.target = reader.text();
  if (file.type === "hardlink" && (!isSafePath(file.target) || file.target >= file.path)) {
    throw reader.damage("links to where it must not");
  }
  reader.end();
  return file;
}

function readContent(chunks, reader) {
  const size = reader.varint();
  const form = reader.u8();
  if (form === 0) {
    const list = [];
    const count = reader.varint();
    for (let index = 0; index < count; index++) {
      list.push({ id: reader.raw(32), length: reader.varint() });
    }
    return { size, content: () => list };
  }
  if (form !== 1) throw reader.damage("has an unknown form of contents");
  const root = { id: reader.raw(32), length: reader.varint(), count: reader.varint() };
  function* content() {
    for (const record of readTree(chunks, root)) {
      const row = new Reader(record, "chunk record");
      yield { id: row.raw(32), length: row.varint() };
      row.end();
    }
  }
  return { size, content };
}

function* readListing(chunks, root) {
  let after;
  for (const record of readTree(chunks, root)) {
    const file = readFile(chunks, record, after);
    after = file.path;
    yield file;
  }
}

function readManifest(site, backup) {
  const { id, birth } = backup.manifest;
  const key = `manifest/${id}-${birth}`;
  const stored = site.mustGetHashed(key, id);
  const packed = vault === undefined ? stored : openManifest(site, stored, key);
  const manifest = parseJson(unzstd(packed, JSON_SIZE_MAX, key), key);
  if (manifest.v !== 1 || manifest.backup !== backup.backup) {
    throw new Damage(`${key}: is the manifest of another backup`);
  }
  return manifest;
}

function openManifest(site, stored, what) {
  const session = stored.subarray(8, 40).toString("hex");
  return vault.object("manifest", stored, what, vault.session(site, session));
}

// ── Commands ─────────────────────────────────────────────────────────────────────────────────────

function list(site) {
  const { backups, sequence } = readLog(site);
  for (const backup of backups.values()) {
    const marks = [
      backup.complete ? "complete" : `incomplete (${backup.problems} problems)`,
      ...(backup.forgotten === undefined ? [] : [`forgotten: ${backup.forgotten.reason}`]),
    ];
    const { files, bytes } = backup.totals;
    const row = [backup.backup, backup.name, backup.cluster, backup.product, `${files} files`];
    console.log([...row, `${bytes} bytes`, marks.join(", ")].join("\t"));
  }
  console.error(`${backups.size} backups at entry ${sequence}`);
}

function findBackup(state, name) {
  // By start: a site may take an older backup of another one late.
  const backups = [...state.backups.values()].toSorted(
    (a, b) =>
      Date.parse(a.started) - Date.parse(b.started) ||
      Date.parse(a.ended) - Date.parse(b.ended) ||
      a.sequence - b.sequence,
  );
  const listed = backups.filter(({ forgotten }) => forgotten === undefined);
  // A forgotten backup is found by its id only: its packs may be gone at any time.
  const found =
    backups.find(({ backup }) => backup === name) ??
    listed.findLast((backup) => (name === "latest" ? backup.complete : backup.name === name));
  if (found === undefined) throw new Damage(`there is no backup ${name}`);
  return found;
}

/** Checks all packs, then that every listed backup finds all that it names. */
function verify(site) {
  const state = readLog(site);
  const index = readIndex(site, state);
  const problems = [];
  const attempt = (fn) => {
    try {
      fn();
    } catch (error) {
      if (!(error instanceof Damage)) throw error;
      problems.push(error.message);
      console.error(error.message);
    }
  };
  const packs = [...index.packs.values()].filter(({ isGone }) => !isGone);
  for (const pack of packs) attempt(() => verifyPack(site, pack));
  const chunks = new Chunks(site, index);
  const listed = [...state.backups.values()].filter(({ forgotten }) => forgotten === undefined);
  for (const backup of listed) {
    attempt(() => {
      try {
        verifyBackup(site, chunks, backup);
      } catch (error) {
        if (!(error instanceof Closed)) throw error;
        console.error(`${backup.name}: ${error.message}, so its listings were not opened`);
      }
    });
  }
  console.log(`${packs.length} packs, ${listed.length} backups, ${problems.length} problems`);
  return problems.length === 0;
}

function verifyBackup(site, chunks, backup) {
  for (const node of readManifest(site, backup).nodes) {
    for (const volume of node.volumes) {
      for (const file of readListing(chunks, volume.listing)) {
        if (file.type !== "file") continue;
        let size = 0;
        for (const { id, length } of file.content()) {
          const places = chunks.index.chunks.get(latin1(id)) ?? [];
          if (!places.some((place) => place.length === length)) {
            const where = `${backup.name}, node ${node.name}, ${shown(file.path)}`;
            throw new Damage(`${where}: chunk ${id.toString("hex")} is in no current segment`);
          }
          size += length;
        }
        if (size !== file.size) throw new Damage(`${shown(file.path)}: chunks do not add up`);
      }
    }
  }
}

function restore(site, name, target, nodeName) {
  const state = readLog(site);
  const backup = findBackup(state, name);
  const manifest = readManifest(site, backup);
  const chunks = new Chunks(site, readIndex(site, state));
  const nodes = manifest.nodes.filter((node) => nodeName === undefined || node.name === nodeName);
  if (nodes.length === 0) throw new Damage(`backup ${name} has no node ${nodeName}`);
  let xattrs = 0;
  for (const node of nodes) {
    for (const volume of node.volumes) {
      const parts = nodeName === undefined ? [node.name, volume.name] : [volume.name];
      if (!parts.every((part) => isSafePath(part) && !part.includes("/"))) {
        throw new Damage(`node or volume has an impossible name: ${parts.join(", ")}`);
      }
      const root = [target, ...parts].join("/");
      fs.mkdirSync(root, { recursive: true });
      xattrs += restoreVolume(chunks, volume.listing, fs.realpathSync(root));
      console.error(`${node.name}: ${volume.name} (${volume.root}) is in ${root}`);
    }
  }
  console.log(`restored ${backup.name} (${backup.backup})`);
  if (xattrs > 0) console.error(`${xattrs} extended attributes were not restored`);
}

function restoreVolume(chunks, listing, root) {
  const inRoot = (path) => Buffer.concat([Buffer.from(`${root}/`), Buffer.from(path, "latin1")]);
  const directories = [];
  let xattrs = 0;
  let parent = "";
  for (const file of readListing(chunks, listing)) {
    const own = file.path.slice(0, Math.max(file.path.lastIndexOf("/"), 0));
    if (own !== parent) mustBeDirectories(own, inRoot);
    parent = own;
    xattrs += file.xattrs;
    const path = inRoot(file.path);
    if (file.type === "directory") {
      fs.mkdirSync(path, 0o700);
      directories.push(file);
      continue;
    }
    if (file.type === "hardlink") {
      fs.linkSync(inRoot(file.target), path);
      continue;
    }
    if (file.type === "symlink") fs.symlinkSync(Buffer.from(file.target, "latin1"), path);
    else writeFile(chunks, file, path);
    setAttributes(file, path);
  }
  // Children first: what is made in a directory changes its time, and a mode may forbid entering.
  for (const file of directories.toReversed()) setAttributes(file, inRoot(file.path));
  return xattrs;
}

/** No part of a path may be a link: a listing could lead out of the target with one. */
function mustBeDirectories(path, inRoot) {
  const parts = path === "" ? [] : path.split("/");
  for (let count = 1; count <= parts.length; count++) {
    const stat = fs.lstatSync(inRoot(parts.slice(0, count).join("/")), { throwIfNoEntry: false });
    if (stat?.isDirectory() !== true) throw new Damage(`${shown(path)}: is not a directory`);
  }
}

function writeFile(chunks, file, path) {
  const handle = fs.openSync(path, "wx", 0o600);
  try {
    let offset = 0;
    for (const { id, length } of file.content()) {
      const bytes = chunks.get(id, length);
      const isHole = file.flags === 1 && bytes.every((byte) => byte === 0);
      for (let done = isHole ? length : 0; done < length;) {
        done += fs.writeSync(handle, bytes, done, length - done, offset + done);
      }
      offset += length;
    }
    if (offset !== file.size) throw new Damage(`${shown(file.path)}: chunks do not add up`);
    fs.ftruncateSync(handle, offset);
  } finally {
    fs.closeSync(handle);
  }
}

function setAttributes(file, path) {
  if (process.getuid?.() === 0) fs.lchownSync(path, file.uid, file.gid);
  if (file.type !== "symlink") fs.chmodSync(path, file.mode);
  fs.lutimesSync(path, file.mtime, file.mtime);
}

function main(args) {
  const option = (name) => {
    const at = args.indexOf(name);
    return at < 0 ? undefined : args.splice(at, 2)[1];
  };
  const node = option("--node");
  const nodeKey = option("--node-key");
  const identity = option("--identity");
  if (nodeKey !== undefined) {
    const identities = identity === undefined ? "" : fs.readFileSync(identity, "utf8");
    vault = new Vault(fs.readFileSync(nodeKey, "utf8"), parseIdentities(identities));
  }
  const [command, root, backup, target] = args;
  const site = new Site(root);
  if (command === "list" && args.length === 2) list(site);
  else if (command === "verify" && args.length === 2) return verify(site) ? 0 : 1;
  else if (command === "restore" && args.length === 4) restore(site, backup, target, node);
  else {
    console.error("usage: read-backup.mjs list SITE");
    console.error("       read-backup.mjs verify SITE");
    console.error("       read-backup.mjs restore SITE BACKUP TARGET [--node NODE]");
    console.error("       encrypted: --node-key FILE, and to restore --identity FILE");
    return 2;
  }
  return 0;
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof Damage) && error.code === undefined) throw error;
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
