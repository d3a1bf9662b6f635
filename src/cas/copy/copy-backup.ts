/**
 * One backup from a site to another: the packs that are not there, its lists, its manifest, and the
 * commit by the rules of the other site's log. Whatever moved meanwhile on either side is looked at
 * again. A copy that dies anywhere leaves nothing but packs that the next one finds, or garbage.
 */
import { AppError } from "../../base/error.ts";
import { sha256Hex } from "../../base/hex.ts";
import type { BackupDraft } from "../write/backup-commit.ts";
import { commitBackup } from "../write/backup-commit.ts";
import { damagedError } from "../format/bytes.ts";
import { manifestKey } from "../format/ids.ts";
import type { SealedPack } from "../format/pack.ts";
import { packKey } from "../format/pack.ts";
import { sessionOfManifest } from "../format/seal.ts";
import { getNamedPack } from "../clean/pack-standing.ts";
import type { EntryBodies } from "../log/entry.ts";
import type { BackupRecord, RepositoryState } from "../log/state.ts";
import { CopiedKeys } from "./copy-keys.ts";
import type { CopiedLists } from "./copy-lists.ts";
import { listsWithoutMoves, readUses } from "./copy-lists.ts";
import type { CopySide } from "./copy-side.ts";
import { backupsToHold, callOf, copyStateOf, mustNotBeForeign } from "./copy-side.ts";
import { PackTable } from "./pack-table.ts";
import type { PackArrived, PackOrder, PackTransfer } from "./transfer-pack.ts";
import { UnnamedPacks } from "./unnamed-packs.ts";

/** What a copy works with. */
export type CopyParts = {
  readonly from: CopySide;
  readonly to: CopySide;
  readonly operation: string;
  readonly transfer: PackTransfer;
  readonly readBack: boolean;
  /** Bytes between two keeps. */
  readonly keepEveryBytes: number;
  /** The birth under which nodes may have sent packs already. */
  readonly sentUnder: number | undefined;
  /** Told of packs that lie at the target now. */
  readonly onArrived: (arrived: readonly PackArrived[]) => void;
  readonly signal: AbortSignal | undefined;
};

/** What became of a backup; `gone` if its site has dropped it meanwhile. */
export type CopiedState = "copied" | "there" | "forgotten-there" | "gone";

/** How often a copy begins again because something moved on either side. */
const TRY_COUNT_MAX = 12;
const BATCH_PACK_COUNT_MAX = 128;
const BATCH_DIRECTORY_BYTES_MAX = 16 * 1024 * 1024;

/** Copies backups, one after the other. */
export class BackupCopier {
  readonly #parts: CopyParts;
  readonly #keys: CopiedKeys;
  readonly #unnamed: UnnamedPacks;
  /** Names at the target that have other bytes than they should. */
  readonly #taken = new Set<string>();

  constructor(parts: CopyParts) {
    const { from, to, operation, signal } = parts;
    this.#parts = parts;
    this.#keys = new CopiedKeys(from, to, signal);
    this.#unnamed = new UnnamedPacks(to.repository, { operation, keys: this.#keys, signal });
  }

  /** Copies one backup; `override` says if what the target has forgotten is brought back. */
  async copy(
    backup: string,
    options: { readonly override: (from: RepositoryState, to: RepositoryState) => boolean },
  ): Promise<CopiedState> {
    for (let count = 1; ; count += 1) {
      const { from, to } = this.#parts;
      const states = { from: from.repository.state, to: to.repository.state };
      const record = backupsToHold(states.from).find((one) => one.backup === backup);
      const standing = copyStateOf(states.to, backup);
      if (standing === "there") return standing;
      if (record === undefined) return "gone";
      if (standing === "forgotten-there" && !options.override(states.from, states.to)) {
        return standing;
      }
      mustNotBeForeign(states.from, states.to, record);
      this.#unnamed.giveUp();
      try {
        await this.#copyOnce(record, states);
        return "copied";
      } catch (thrown) {
        if (count === TRY_COUNT_MAX) throw thrown;
        if (!(await this.#mayTryAgain(thrown, states, count === 1))) throw thrown;
      }
    }
  }

  async #copyOnce(
    record: BackupRecord,
    states: { readonly from: RepositoryState; readonly to: RepositoryState },
  ): Promise<void> {
    const { from, to, operation, signal } = this.#parts;
    using needed = new PackTable(to.repository.catalog);
    for await (const uses of readUses(from, states.from, record, signal)) needed.add(uses);
    await this.#bringAll(needed, states.from);
    const lists = await listsWithoutMoves(from, states.from, record, {
      to: to.repository,
      onPack: (pack) => this.#putPack(pack),
      signal,
    });
    const manifest = await this.#putManifest(record);
    await this.#unnamed.writeAll();
    const draft = this.#draftOf(record, lists, manifest);
    await commitBackup(to.repository, to.source, draft, { operation, signal });
    this.#unnamed.named();
  }

  /** Brings the packs that the target does not name; those that it has retired are revived. */
  async #bringAll(needed: PackTable, fromState: RepositoryState): Promise<void> {
    const { keepEveryBytes } = this.#parts;
    let batch: PackOrder[] = [];
    let sizeBytes = 0;
    let directoryBytes = 0;
    for (const { pack } of needed.list()) {
      const order = this.#orderOf(pack, fromState);
      if (order === undefined) continue;
      batch.push(order);
      sizeBytes += order.sizeBytes;
      directoryBytes += order.directoryLength;
      const isFull =
        batch.length >= BATCH_PACK_COUNT_MAX ||
        directoryBytes >= BATCH_DIRECTORY_BYTES_MAX ||
        this.#unnamed.sizeBytes + sizeBytes >= keepEveryBytes;
      if (!isFull) continue;
      await this.#bring(batch);
      batch = [];
      sizeBytes = 0;
      directoryBytes = 0;
    }
    await this.#bring(batch);
  }

  async #bring(orders: readonly PackOrder[]): Promise<void> {
    if (orders.length === 0) return;
    const { transfer, onArrived, keepEveryBytes, signal } = this.#parts;
    const arrived = await transfer(orders, signal);
    const ids = new Set(arrived.map(({ pack }) => pack));
    const missing = orders.find(({ pack }) => !ids.has(pack));
    if (missing !== undefined) throw new AppError("internal", `Pack ${missing.pack} was left out.`);
    await this.#unnamed.add(arrived);
    onArrived(arrived);
    if (this.#unnamed.sizeBytes >= keepEveryBytes) await this.#unnamed.keep();
  }

  /** How a pack comes to the target; undefined if it is there. */
  #orderOf(pack: string, fromState: RepositoryState): PackOrder | undefined {
    const { from, to, readBack, sentUnder } = this.#parts;
    const { state } = to.repository;
    if (this.#unnamed.has(pack)) return undefined;
    if (getNamedPack(to.repository, state, pack) !== undefined) return undefined;
    const source = getNamedPack(from.repository, fromState, pack);
    if (source === undefined) {
      const what = `Pack ${pack}, which a backup needs,`;
      throw damagedError(what, `is not named by ${from.repository.site.location}`, { pack });
    }
    const { birth: fromBirth, sizeBytes, directoryLength } = source;
    const sent = [this.#unnamed.birthOf(pack), sentUnder].find(
      (birth) =>
        birth !== undefined && birth > state.floor && !this.#taken.has(packKey(pack, birth)),
    );
    const toBirth = sent ?? state.sequence;
    const mayBeThere = sent !== undefined;
    return { pack, fromBirth, toBirth, sizeBytes, directoryLength, mayBeThere, readBack };
  }

  /** A pack of ours, with nodes of lists. */
  async #putPack(pack: SealedPack): Promise<void> {
    const { to, signal } = this.#parts;
    const birth = to.repository.state.sequence;
    const { id, bytes, directoryBytes } = pack;
    await to.repository.putObject(packKey(id, birth), bytes, callOf(signal));
    const sizeBytes = bytes.length;
    await this.#unnamed.add([{ pack: id, birth, sizeBytes, directoryBytes, isSent: true }]);
  }

  /** The manifest, byte for byte: it names chunks, which are the same everywhere. */
  async #putManifest(record: BackupRecord): Promise<EntryBodies["backup"]["manifest"]> {
    const { from, to, readBack, signal } = this.#parts;
    const { id } = record.manifest;
    const key = manifestKey(id, record.manifest.birth);
    const bytes = await readHashed(from, key, id, signal);
    if (!from.repository.sealer.isPlain) await this.#keys.bring([sessionOfManifest(bytes, key)]);
    const birth = to.repository.state.sequence;
    const target = manifestKey(id, birth);
    await to.repository.putObject(target, bytes, { sha256: id, ...callOf(signal) });
    if (readBack) await readHashed(to, target, id, signal);
    return { id, birth, sizeBytes: bytes.length };
  }

  #draftOf(
    record: BackupRecord,
    lists: CopiedLists,
    manifest: EntryBodies["backup"]["manifest"],
  ): BackupDraft {
    const { backup, name, cluster, product, started, ended, complete, degraded } = record;
    const { repository } = this.#parts.to;
    const { everIds, backups, sequence, siteId } = repository.state;
    // Of one that was deleted since, no forget is left to be named.
    const forget = backups.get(backup)?.forgotten?.sequence ?? sequence;
    return {
      backup,
      name,
      cluster,
      product,
      started,
      ended,
      complete,
      ...(degraded === undefined ? {} : { degraded }),
      problems: record.problems,
      plannedAt: sequence,
      manifest,
      segments: this.#unnamed.segments,
      ...this.#keys.named,
      ...lists,
      totals: record.totals,
      ...(everIds.has(backup) ? { overrides: { site: siteId, sequence: forget } } : {}),
    };
  }

  /**
   * True if the same may succeed now: one of the sites has moved on, or this was the first look at
   * something damaged, which may be what the target acknowledged and did not keep.
   */
  async #mayTryAgain(
    thrown: unknown,
    states: { readonly from: RepositoryState; readonly to: RepositoryState },
    isFirst: boolean,
  ): Promise<boolean> {
    const { from, to, operation, signal } = this.#parts;
    if (!(thrown instanceof AppError) || signal?.aborted === true) return false;
    if (thrown.context["reason"] === "packs-gone") {
      await to.repository.catchUp(signal);
      return true;
    }
    if (thrown.context["reason"] === "taken") {
      this.#taken.add(String(thrown.context["key"]));
      const body = { text: `${String(thrown.context["key"])} has other bytes` };
      await to.repository.commit(() => ({ kind: "note", body }), { operation, ...callOf(signal) });
      return true;
    }
    if (thrown.kind !== "damaged" && thrown.kind !== "refused") return false;
    const now = [await from.repository.catchUp(signal), await to.repository.catchUp(signal)];
    const isMoved =
      now[0]?.sequence !== states.from.sequence || now[1]?.sequence !== states.to.sequence;
    return isMoved || (isFirst && thrown.kind === "damaged");
  }
}

/** A whole object that is named by its hash. */
async function readHashed(
  side: CopySide,
  key: string,
  hash: string,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const { site } = side.repository;
  for (let isLast = false; ; isLast = true) {
    const bytes = await site.get(key, callOf(signal));
    if (bytes !== undefined && sha256Hex(bytes) === hash) return bytes;
    if (!isLast) continue;
    const fault = bytes === undefined ? "is missing" : "does not match its name";
    throw damagedError(`${key} at ${site.location}`, fault, { key });
  }
}
