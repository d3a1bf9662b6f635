/**
 * What a backup needs, read from its lists at the site that it is copied from; and its lists written
 * anew, where repacks there have moved what they speak of: the moves of one site mean nothing to
 * another. Memory: one pack of nodes.
 */
import { AppError } from "../../base/error.ts";
import { idKey } from "../format/bytes.ts";
import { encodePackUse, packUseKey } from "../format/pack-list.ts";
import { PackBuilder } from "../format/pack-builder.ts";
import { SALT_SIZE_BYTES } from "../format/pack.ts";
import type { SealedPack } from "../format/pack.ts";
import type { TreeRoot } from "../format/tree.ts";
import { TreeWriter } from "../format/tree.ts";
import { getNamedPack } from "../clean/pack-standing.ts";
import { movedPacks, readBackupUses } from "../clean/pack-uses.ts";
import type { BackupUse } from "../clean/pack-uses.ts";
import type { Repository } from "../log/repository.ts";
import type { BackupRecord, RepositoryState } from "../log/state.ts";
import type { CopySide } from "./copy-side.ts";
import { PackTable } from "./pack-table.ts";

const LIST_PACK_SIZE_BYTES = 4 * 1024 * 1024;
const COMPRESSION_LEVEL = 1;

/** The lists of a backup as another site's log is to name them. */
export type CopiedLists = Pick<BackupRecord, "lists" | "listPacks">;

/** The packs that a backup needs at a state of its site. */
export function readUses(
  side: CopySide,
  state: RepositoryState,
  record: BackupRecord,
  signal: AbortSignal | undefined,
): AsyncGenerator<BackupUse[], void, undefined> {
  const { repository, source } = side;
  const frameCountOf = (pack: string): number =>
    repository.index.findPack(pack)?.frames.length ?? 0;
  return readBackupUses(state, record, source, { frameCountOf, signal });
}

/**
 * The lists of a backup without moves: as they are, or written anew. `onPack` stores a new pack of
 * nodes at the other site.
 */
export async function listsWithoutMoves(
  from: CopySide,
  state: RepositoryState,
  record: BackupRecord,
  options: {
    readonly to: Repository;
    readonly onPack: (pack: SealedPack) => Promise<void>;
    readonly signal: AbortSignal | undefined;
  },
): Promise<CopiedLists> {
  const moves = state.moves.get(record.backup) ?? [];
  if (moves.length === 0) return { lists: record.lists, listPacks: record.listPacks };
  const moved = movedPacks(moves);
  const nodes = new ListNodes(options);
  const roots = new Map<string, TreeRoot>();
  for (const { root } of record.lists) {
    if (roots.has(root.id)) continue;
    using uses = new PackTable(options.to.catalog);
    const own = { ...record, lists: [{ node: "", root }], listPacks: [] };
    for await (const batch of readUses(from, state, own, options.signal)) {
      for (const use of batch) if (use.isWhole && use.frameCount === 0) throw unknownPack(use.pack);
      uses.add(batch);
    }
    roots.set(root.id, await nodes.write(uses));
  }
  await nodes.finish();
  const former = record.listPacks.flatMap((pack) => moved.get(pack) ?? [pack]);
  return {
    lists: record.lists.map(({ node, root }) => ({ node, root: roots.get(root.id) ?? root })),
    listPacks: [...new Set([...former, ...nodes.packs])],
  };
}

/** Nodes of new lists: one that the other site has is used there, the others go into new packs. */
class ListNodes {
  /** The packs that hold nodes. */
  readonly packs = new Set<string>();
  readonly #to: Repository;
  readonly #onPack: (pack: SealedPack) => Promise<void>;
  readonly #builder: PackBuilder;
  readonly #stored = new Set<string>();
  readonly #sealed: SealedPack[] = [];

  constructor(options: {
    readonly to: Repository;
    readonly onPack: (pack: SealedPack) => Promise<void>;
  }) {
    this.#to = options.to;
    this.#onPack = options.onPack;
    const { sealer, random } = options.to;
    this.#builder = new PackBuilder({
      kind: "metadata",
      packSizeBytes: LIST_PACK_SIZE_BYTES,
      compression: { level: COMPRESSION_LEVEL },
      salt: () => random.bytes(SALT_SIZE_BYTES),
      // Lists are for all nodes, so never under a session key.
      sealing: sealer.isPlain ? undefined : { sealer, session: undefined },
    });
  }

  async write(uses: PackTable): Promise<TreeRoot> {
    const tree = new TreeWriter((bytes) => this.#put(bytes));
    for (const { pack, frameCount, frames } of uses.list()) {
      const use = { pack, frameCount, frames };
      tree.add(packUseKey(use), encodePackUse(use));
      if (this.#sealed.length > 0) await this.#send();
    }
    return tree.finish();
  }

  async finish(): Promise<void> {
    const last = this.#builder.finish();
    if (last !== undefined) this.#sealed.push(last);
    await this.#send();
  }

  #put(bytes: Uint8Array): Uint8Array {
    const id = this.#to.sealer.chunkId(bytes);
    if (this.#stored.has(idKey(id))) return id;
    this.#stored.add(idKey(id));
    const { index, state } = this.#to;
    const known = index.find(id).find(
      ({ pack, length, seal }) =>
        length === bytes.length &&
        // A file may have the very bytes of a node, under a session key that no node can open.
        seal?.origin.session === undefined &&
        getNamedPack(this.#to, state, pack) !== undefined,
    );
    if (known !== undefined) {
      this.packs.add(known.pack);
      return id;
    }
    const full = this.#builder.add(id, bytes);
    if (full !== undefined) this.#sealed.push(full);
    return id;
  }

  async #send(): Promise<void> {
    for (const pack of this.#sealed.splice(0)) {
      this.packs.add(pack.id);
      await this.#onPack(pack);
    }
  }
}

function unknownPack(pack: string): AppError {
  return new AppError("damaged", `Pack ${pack} is not in this node's index of chunks.`, {
    guidance: "An index segment of that site could not be read; `astacus verify` says which.",
    context: { pack },
  });
}
