/**
 * Trees (docs/format.md section 6): a sequence of records of any length as chunks that neighbouring
 * sequences share. Where a node ends depends only on keys and sizes since the last cut, so that a
 * change in the middle makes about one new node a level. Writing holds one open node a level, reading
 * one node a level and a few leaves ahead.
 */
import assert from "node:assert/strict";
import { z } from "zod";
import { AppError } from "../../base/error.ts";
import { fromHex, SHA256_SIZE_BYTES, toHex } from "../../base/hex.ts";
import {
  ByteReader,
  ByteWriter,
  bytesFromLatin1,
  damagedError,
  idKey,
  latin1FromBytes,
} from "./bytes.ts";

/** What names a tree. */
export type TreeRoot = {
  /** Chunk id of the root node as hex. */
  readonly id: string;
  /** Bytes of the root node. */
  readonly length: number;
  /** Records in all leaves. */
  readonly count: number;
};

/** A `TreeRoot` in JSON: in log entries and manifests. */
export const treeRootSchema = z.strictObject({
  id: z.string().regex(/^[0-9a-f]{64}$/),
  length: z.number().int().min(1),
  count: z.number().int().min(0),
});

/** Fetches one chunk whose bytes match its id. */
export type ChunkFetch = (id: Uint8Array, length: number) => Promise<Uint8Array>;

/** One node as a chunk of the tree. */
export type TreeNode = {
  readonly id: Uint8Array;
  readonly length: number;
  /** 0 for a leaf. */
  readonly level: number;
};

/** What to read of a tree, and what to check. */
export type ReadTreeOptions = {
  /** Starts with the leaf that may hold this key; with `keyOf`, exactly there. */
  readonly from?: string;
  /** The key of a record: then keys must ascend, and must be those that inner nodes name. */
  readonly keyOf?: (record: Uint8Array) => string;
  readonly signal?: AbortSignal | undefined;
};

/** A record larger than this is refused: a node must fit a frame. */
export const RECORD_SIZE_BYTES_MAX = 2 * 1024 * 1024;

const NODE_SIZE_BYTES_TARGET = 64 * 1024;
/** No node is cut before this share of the target, and all are at this multiple. */
const NODE_SIZE_SHARE_MIN = 1 / 4;
const NODE_SIZE_SHARE_MAX = 4;
/** A level that does not shrink would never end in a root. */
const INNER_RECORD_COUNT_MIN = 2;
const LEVEL_MAX = 32;
const NODES_AHEAD = 4;

/**
 * Writes a tree from records in order. `put` stores a node, whose bytes it may keep, and returns
 * its id.
 *
 * @example
 * const tree = new TreeWriter((bytes) => store(bytes));
 * for (const file of files) tree.add(file.path, encodeRecord(file));
 * const root = tree.finish();
 */
export class TreeWriter {
  readonly #put: (bytes: Uint8Array) => Uint8Array;
  readonly #targetSizeBytes: number;
  readonly #levels: OpenNode[] = [];
  #root: TreeRoot | undefined;

  constructor(
    put: (bytes: Uint8Array) => Uint8Array,
    options: { readonly targetSizeBytes?: number } = {},
  ) {
    this.#put = put;
    this.#targetSizeBytes = options.targetSizeBytes ?? NODE_SIZE_BYTES_TARGET;
    assert(this.#targetSizeBytes >= 16);
    assert(this.#targetSizeBytes * NODE_SIZE_SHARE_MAX <= RECORD_SIZE_BYTES_MAX);
  }

  /** Appends a record; keys are byte strings, of which only the cuts and `from` take notice. */
  add(key: string, record: Uint8Array): void {
    assert.equal(this.#root, undefined);
    this.#append(0, { key, record, count: 1 });
  }

  /** Writes what is open and names the tree. */
  finish(): TreeRoot {
    assert.equal(this.#root, undefined);
    for (let level = 0; ; level++) {
      const node = this.#level(level);
      // Empty is the lowest level of an empty tree, or a level whose last node was just cut.
      if (node.recordCount > 0 || node.writtenCount === 0) this.#write(level);
      if (node.writtenCount === 1) {
        assert(node.last !== undefined);
        this.#root = node.last;
        return node.last;
      }
    }
  }

  #append(level: number, entry: { key: string; record: Uint8Array; count: number }): void {
    const { key, record, count } = entry;
    if (record.length > RECORD_SIZE_BYTES_MAX) throw tooLarge(key, record.length);
    const node = this.#level(level);
    const minCount = level === 0 ? 1 : INNER_RECORD_COUNT_MIN;
    const sizeBytesMax = this.#targetSizeBytes * NODE_SIZE_SHARE_MAX;
    if (node.recordCount >= minCount && node.writer.length + record.length > sizeBytesMax) {
      this.#write(level);
    }
    if (node.recordCount === 0) node.firstKey = key;
    node.writer.bytes(record);
    node.recordCount += 1;
    node.count += count;
    if (node.recordCount >= minCount && this.#isCut(node.writer.length, key, record.length)) {
      this.#write(level);
    }
  }

  /**
   * A record ends its node with a chance that grows with its size, so that nodes have the target size
   * on average whatever the records. Beyond the target the chance is four times as high: cuts at the
   * largest size, which move with every change before them, are then rare.
   */
  #isCut(nodeSizeBytes: number, key: string, recordSizeBytes: number): boolean {
    const target = this.#targetSizeBytes;
    if (nodeSizeBytes < target * NODE_SIZE_SHARE_MIN) return false;
    const chance = (recordSizeBytes + 1) / target;
    return hashKey(key) < (nodeSizeBytes < target ? chance : 4 * chance) * 2 ** 32;
  }

  #write(level: number): void {
    const node = this.#level(level);
    const bytes = node.writer.finish();
    const id = this.#put(bytes);
    assert.equal(id.length, SHA256_SIZE_BYTES);
    const { firstKey, count } = node;
    node.writtenCount += 1;
    node.last = { id: toHex(id), length: bytes.length, count };
    node.writer.reset();
    node.writer.u8(level);
    node.recordCount = 0;
    node.count = 0;
    const record = encodeChild({ id, length: bytes.length, count, firstKey });
    this.#append(level + 1, { key: firstKey, record, count });
  }

  #level(level: number): OpenNode {
    const existing = this.#levels[level];
    if (existing !== undefined) return existing;
    assert(level < LEVEL_MAX);
    const writer = new ByteWriter(2 * this.#targetSizeBytes);
    writer.u8(level);
    const node: OpenNode = {
      writer,
      firstKey: "",
      recordCount: 0,
      count: 0,
      writtenCount: 0,
      last: undefined,
    };
    this.#levels.push(node);
    return node;
  }
}

/**
 * The records of a tree in order, a leaf at a time. Levels and counts are checked, with `keyOf` also
 * that keys ascend; what does not fit is an AppError (`damaged`).
 */
export async function* readTree(
  root: TreeRoot,
  fetch: ChunkFetch,
  options: ReadTreeOptions = {},
): AsyncGenerator<Uint8Array[], void, undefined> {
  const place: NodePlace = { id: fromHex(root.id), length: root.length, count: root.count };
  yield* readNode(place, await fetchNode(place, fetch, options.signal), {
    ...options,
    fetch,
    lastKey: undefined,
  });
}

/**
 * All nodes of a tree, each before what is below it; leaves are not fetched. A node that `skip` is
 * true for (the key of its id as `idKey` gives it) is left out with everything below it.
 */
export async function* listTreeNodes(
  root: TreeRoot,
  fetch: ChunkFetch,
  options: {
    readonly skip?: (key: string) => boolean;
    readonly signal?: AbortSignal | undefined;
  } = {},
): AsyncGenerator<TreeNode, void, undefined> {
  const { skip = () => false, signal } = options;
  const pending: NodePlace[] = [{ id: fromHex(root.id), length: root.length, count: root.count }];
  for (let place = pending.pop(); place !== undefined; place = pending.pop()) {
    const { id, length } = place;
    if (skip(idKey(id))) continue;
    if (place.level === 0) {
      yield { id, length, level: 0 };
      continue;
    }
    const node = parseNode(place, await fetchNode(place, fetch, signal));
    yield { id, length, level: node.level };
    if (node.level > 0) pending.push(...childrenOf(place, node).toReversed());
  }
}

/** A node that is being filled. */
type OpenNode = {
  readonly writer: ByteWriter;
  firstKey: string;
  /** Records in the node. */
  recordCount: number;
  /** Leaf records in and below the node. */
  count: number;
  /** Nodes of this level that were written. */
  writtenCount: number;
  last: TreeRoot | undefined;
};

/** A node as its parent or the root names it. */
type NodePlace = {
  readonly id: Uint8Array;
  readonly length: number;
  readonly count: number;
  /** Undefined for the root, which may be of any level. */
  readonly level?: number;
  readonly firstKey?: string;
};

type ParsedNode = { readonly level: number; readonly records: Uint8Array[] };

type Walk = ReadTreeOptions & {
  readonly fetch: ChunkFetch;
  /** The key of the record before, across leaves. */
  lastKey: string | undefined;
};

async function* readNode(
  place: NodePlace,
  bytes: Uint8Array,
  walk: Walk,
): AsyncGenerator<Uint8Array[], void, undefined> {
  const node = parseNode(place, bytes);
  if (node.level === 0) {
    const records = checkLeaf(place, node.records, walk);
    if (records.length > 0) yield records;
    return;
  }
  const children = childrenOf(place, node);
  const { from } = walk;
  const first = from === undefined ? 0 : findChild(children, from);
  yield* readChildren(children.slice(first), walk);
}

/** Reads children in order while the next ones are on their way. */
async function* readChildren(
  children: readonly NodePlace[],
  walk: Walk,
): AsyncGenerator<Uint8Array[], void, undefined> {
  const ahead: Promise<Uint8Array>[] = [];
  let fetchedCount = 0;
  try {
    for (const [index, child] of children.entries()) {
      for (; fetchedCount < Math.min(index + NODES_AHEAD, children.length); fetchedCount++) {
        const next = fetchNode(children[fetchedCount] ?? child, walk.fetch, walk.signal);
        // Its failure is met when its turn comes, or does not matter any more.
        next.catch(() => undefined);
        ahead.push(next);
      }
      const bytes = await ahead.shift();
      assert(bytes !== undefined);
      yield* readNode(child, bytes, walk);
    }
  } finally {
    await Promise.allSettled(ahead);
  }
}

async function fetchNode(
  place: NodePlace,
  read: ChunkFetch,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  signal?.throwIfAborted();
  const bytes = await read(place.id, place.length);
  if (bytes.length !== place.length) throw nodeDamaged(place, "is not as long as its parent says");
  return bytes;
}

function parseNode(place: NodePlace, bytes: Uint8Array): ParsedNode {
  const reader = new ByteReader(bytes, nodeName(place));
  const level = reader.u8();
  if (level !== (place.level ?? level) || level >= LEVEL_MAX) {
    throw reader.damaged("is not of the level that its parent says");
  }
  const records: Uint8Array[] = [];
  while (reader.remaining > 0) records.push(reader.bytes());
  return { level, records };
}

/** The children of an inner node; their counts and first keys must be those of the node. */
function childrenOf(place: NodePlace, node: ParsedNode): NodePlace[] {
  const children = node.records.map((record) => decodeChild(record, node.level - 1));
  const count = children.reduce((sum, child) => sum + child.count, 0);
  if (count !== place.count) throw nodeDamaged(place, "does not hold as many records as it should");
  const firstKey = children[0]?.firstKey;
  if (firstKey === undefined) throw nodeDamaged(place, "is an inner node without children");
  if (firstKey !== (place.firstKey ?? firstKey)) {
    throw nodeDamaged(place, "does not start with the key that its parent says");
  }
  return children;
}

/** The records of a leaf, from `from` on where keys are known. */
function checkLeaf(place: NodePlace, records: Uint8Array[], walk: Walk): Uint8Array[] {
  if (records.length !== place.count) {
    throw nodeDamaged(place, "does not hold as many records as it should");
  }
  const { keyOf, from } = walk;
  if (keyOf === undefined) return records;
  let skipCount = 0;
  for (const [index, record] of records.entries()) {
    const key = keyOf(record);
    if (index === 0 && key !== (place.firstKey ?? key)) {
      throw nodeDamaged(place, "does not start with the key that its parent says");
    }
    if (walk.lastKey !== undefined && walk.lastKey >= key) {
      throw nodeDamaged(place, "has records that are not in order");
    }
    walk.lastKey = key;
    if (from !== undefined && key < from) skipCount = index + 1;
  }
  return skipCount === 0 ? records : records.slice(skipCount);
}

/** The last child that may hold the key or one after it. */
function findChild(children: readonly NodePlace[], from: string): number {
  const after = children.findIndex(({ firstKey }) => firstKey !== undefined && firstKey > from);
  return after < 0 ? children.length - 1 : Math.max(after - 1, 0);
}

function encodeChild(child: {
  readonly id: Uint8Array;
  readonly length: number;
  readonly count: number;
  readonly firstKey: string;
}): Uint8Array {
  const writer = new ByteWriter(64 + child.firstKey.length);
  writer.raw(child.id);
  writer.varint(child.length);
  writer.varint(child.count);
  writer.raw(bytesFromLatin1(child.firstKey));
  return writer.finish();
}

function decodeChild(record: Uint8Array, level: number): NodePlace {
  const reader = new ByteReader(record, "A record of an inner tree node");
  const id = reader.raw(SHA256_SIZE_BYTES);
  const length = reader.varint();
  const count = reader.varint();
  const firstKey = latin1FromBytes(reader.raw(reader.remaining));
  return { id, length, count, level, firstKey };
}

function hashKey(key: string): number {
  return Bun.hash.xxHash32(bytesFromLatin1(key));
}

function nodeName(place: NodePlace): string {
  return `Tree node ${toHex(place.id)}`;
}

function nodeDamaged(place: NodePlace, fault: string): AppError {
  return damagedError(nodeName(place), fault);
}

function tooLarge(key: string, sizeBytes: number): AppError {
  return new AppError("refused", `A record of ${sizeBytes} bytes is too large to be listed.`, {
    guidance: `Nothing above ${RECORD_SIZE_BYTES_MAX} bytes fits: look for huge extended attributes.`,
    context: { key: key.slice(0, 200), sizeBytes },
  });
}
