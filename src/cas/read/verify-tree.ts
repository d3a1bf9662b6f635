/**
 * Walks a tree around damage: a node that cannot be read is reported, with what it takes with it,
 * and the walk goes on beside it. Reading for a restore stops at the first fault (tree.ts); here all
 * of them are wanted. Memory: the children of one node of each level.
 */
import { fromHex, SHA256_SIZE_BYTES } from "../../base/hex.ts";
import { ByteReader, damagedError, latin1FromBytes } from "../format/bytes.ts";
import type { TreeRoot } from "../format/tree.ts";

/** A node as its parent names it. */
export type NodeRef = {
  readonly id: Uint8Array;
  readonly length: number;
  /** Leaf records in and below it. */
  readonly count: number;
  /** Key of the first of them; undefined for the root. */
  readonly firstKey?: string;
};

/** What a walk tells. */
export type TreeVisitor = {
  /** Fetches the bytes of a node, verified. */
  readonly fetch: (id: Uint8Array, length: number) => Promise<Uint8Array>;
  /** Before a node is fetched. */
  readonly onNode: (node: NodeRef) => void;
  readonly onRecords: (records: readonly Uint8Array[]) => Promise<void> | void;
  /** A node that cannot be read or does not fit. */
  readonly onFault: (node: NodeRef, thrown: unknown) => void;
};

type Pending = NodeRef & { readonly level?: number };

/** Visits every node that can be reached, in order. */
export async function visitTree(root: TreeRoot, visitor: TreeVisitor): Promise<void> {
  const { length, count } = root;
  const pending: Pending[] = [{ id: fromHex(root.id), length, count }];
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    visitor.onNode(node);
    let parsed: { readonly level: number; readonly records: readonly Uint8Array[] };
    let children: Pending[] = [];
    try {
      parsed = parseNode(await visitor.fetch(node.id, node.length), node);
      if (parsed.level > 0) children = childrenOf(parsed, node);
    } catch (thrown) {
      visitor.onFault(node, thrown);
      continue;
    }
    if (parsed.level === 0) await visitor.onRecords(parsed.records);
    else pending.push(...children.toReversed());
  }
}

function parseNode(bytes: Uint8Array, node: Pending) {
  const reader = new ByteReader(bytes, "A tree node");
  const level = reader.u8();
  if (node.level !== undefined && node.level !== level) throw reader.damaged("is of another level");
  const records: Uint8Array[] = [];
  while (reader.remaining > 0) records.push(reader.bytes());
  if (level === 0 && records.length !== node.count) {
    throw reader.damaged(`has ${records.length} records instead of ${node.count}`);
  }
  return { level, records };
}

function childrenOf(
  parsed: { readonly level: number; readonly records: readonly Uint8Array[] },
  node: Pending,
): Pending[] {
  const children = parsed.records.map((record): Pending => {
    const reader = new ByteReader(record, "A record of a tree node");
    const id = reader.raw(SHA256_SIZE_BYTES);
    const length = reader.varint();
    const count = reader.varint();
    const firstKey = latin1FromBytes(reader.raw(reader.remaining));
    return { id, length, count, firstKey, level: parsed.level - 1 };
  });
  const count = children.reduce((sum, child) => sum + child.count, 0);
  if (count === node.count) return children;
  throw damagedError("A tree node", `has ${count} records below it instead of ${node.count}`);
}
