/**
 * The proof that a site lacks nothing of another one: every backup that the one holds is listed at
 * the other, its manifest is there, and each pack of its lists is live there and as long as it must
 * be, or, if asked, right in every stored byte; and the key objects under which any of that is. The
 * header, the log and the index segments are read at the site too: packs are looked up in this node's
 * catalog, and a node that has none must find them as well. Believes nothing that an earlier copy has
 * said.
 * Memory: ids of packs that are not as they should be, and at most `CONCURRENCY` packs.
 */
import { AppError } from "../../base/error.ts";
import { freeBytes } from "../../base/free-bytes.ts";
import { sha256Hex } from "../../base/hex.ts";
import { forEachConcurrent } from "../../base/semaphore.ts";
import { keyKey, manifestKey } from "../format/ids.ts";
import { packKey } from "../format/pack.ts";
import { originsOf, sessionOfManifest } from "../format/seal.ts";
import { getNamedPack } from "../clean/pack-standing.ts";
import { isPinned } from "../log/state.ts";
import type { BackupRecord, RepositoryState } from "../log/state.ts";
import { verifySite } from "../read/verify-site.ts";
import { readUses } from "./copy-lists.ts";
import type { CopySide } from "./copy-side.ts";
import { callOf, copyStateOf, mustBeSitesOfOne } from "./copy-side.ts";
import { PackTable } from "./pack-table.ts";
import { readPack } from "./transfer-pack.ts";

const CONCURRENCY = 8;
const DEEP_CONCURRENCY = 4;

/** A backup of one site that the other does not hold as it should. */
export type Unproved = { readonly id: string; readonly name: string; readonly why: string };

/** What was looked at, and what is not proved. */
export type CopyProof = {
  readonly backups: number;
  readonly packs: number;
  readonly bytes: number;
  readonly unproved: readonly Unproved[];
};

/** Looks whether `to` holds all that `from` does. Nothing is changed. */
export async function proveCopy(
  from: CopySide,
  to: CopySide,
  options: {
    /** Reads every pack whole. */
    readonly deep: boolean;
    readonly onProgress?: (done: { readonly packs: number; readonly bytes: number }) => void;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<CopyProof> {
  const { signal } = options;
  mustBeSitesOfOne(from, to);
  const state = await from.repository.catchUp(signal);
  await to.repository.catchUp(signal);
  using proof = new Proof(to, options);
  const unproved: Unproved[] = [];
  const held = [...state.backups.values()].filter(
    ({ backup, forgotten }) => forgotten === undefined || isPinned(state, backup),
  );
  let whyNone = await proof.whyNone();
  for (const record of held) {
    const why = whyNone ?? (await proof.whyNot(record));
    if (why !== undefined) unproved.push({ id: record.backup, name: record.name, why });
  }
  // Segments that are newer than the first look hold what was looked up since.
  whyNone ??= await proof.whyNone();
  if (whyNone !== undefined) {
    const why = whyNone;
    unproved.splice(0, Infinity, ...held.map(({ backup: id, name }) => ({ id, name, why })));
  }
  return { backups: held.length, packs: proof.packs, bytes: proof.bytes, unproved };
}

class Proof implements Disposable {
  packs = 0;
  bytes = 0;
  readonly #to: CopySide;
  readonly #options: Parameters<typeof proveCopy>[2];
  readonly #seen: PackTable;
  /** Sessions whose key objects are there and right. */
  readonly #keys = new Set<string>();
  /** Packs that are to be looked at again: they were not named, or wrong when the log was shorter. */
  readonly #unnamed = new Set<string>();
  /** Why a pack does not count, by id. */
  readonly #faults = new Map<string, string>();
  /** Where the log stood when all was found right that is no backup's own. */
  #soundSequence = -1;

  constructor(to: CopySide, options: Parameters<typeof proveCopy>[2]) {
    this.#to = to;
    this.#options = options;
    this.#seen = new PackTable(to.repository.catalog);
  }

  /** Why nobody who sees the site for the first time can restore from it; asked once for each state. */
  async whyNone(): Promise<string | undefined> {
    const { repository } = this.#to;
    const { sequence } = repository.state;
    if (sequence === this.#soundSequence) return undefined;
    const { signal } = this.#options;
    const [problem] = await verifySite(repository, { manifests: false, signal });
    if (problem === undefined) {
      this.#soundSequence = sequence;
      return undefined;
    }
    return `of the index and the log at ${repository.site.location}: ${problem.message}`;
  }

  /** Why a backup is not proved to be there; asked again if the log moved on under the look. */
  async whyNot({ backup }: Pick<BackupRecord, "backup">): Promise<string | undefined> {
    const { repository } = this.#to;
    for (;;) {
      const { state } = repository;
      const why = await this.#look(backup, state);
      if (why === undefined) return undefined;
      const now = await repository.catchUp(this.#options.signal);
      if (now.sequence === state.sequence) return why;
      // What was wrong may lie elsewhere now, repaired or sent again: it is looked at anew.
      for (const pack of this.#faults.keys()) this.#unnamed.add(pack);
      this.#faults.clear();
    }
  }

  [Symbol.dispose](): void {
    this.#seen[Symbol.dispose]();
  }

  async #look(backup: string, state: RepositoryState): Promise<string | undefined> {
    const { location } = this.#to.repository.site;
    const record = state.backups.get(backup);
    if (record === undefined || copyStateOf(state, backup) !== "there") {
      return `it is not listed at ${location}`;
    }
    try {
      await this.#lookAtManifest(record);
      for await (const uses of readUses(this.#to, state, record, this.#options.signal)) {
        const fresh = new Set(this.#seen.add(uses).map(({ pack }) => pack));
        for (const { pack } of uses) if (this.#unnamed.delete(pack)) fresh.add(pack);
        await this.#lookAtPacks([...fresh], state);
        for (const { pack } of uses) {
          const fault = this.#faults.get(pack) ?? whyNotLive(this.#to, state, pack);
          if (fault !== undefined) return fault;
        }
      }
    } catch (thrown) {
      if (thrown instanceof AppError && thrown.kind === "damaged") return thrown.message;
      throw thrown;
    }
  }

  async #lookAtManifest({ manifest }: BackupRecord): Promise<void> {
    const { site, sealer } = this.#to.repository;
    const key = manifestKey(manifest.id, manifest.birth);
    const bytes = await site.get(key, callOf(this.#options.signal));
    if (bytes === undefined || sha256Hex(bytes) !== manifest.id) {
      throw wrongObject(key, site.location, bytes);
    }
    if (!sealer.isPlain) await this.#lookAtKey(sessionOfManifest(bytes, key));
  }

  /** The key object of a session, once. */
  async #lookAtKey(session: string): Promise<void> {
    if (this.#keys.has(session)) return;
    const { site, state } = this.#to.repository;
    const stored = state.keys.get(session);
    const key = keyKey(session, stored?.birth ?? 0);
    const bytes = stored && (await site.get(key, callOf(this.#options.signal)));
    if (stored === undefined || bytes === undefined || sha256Hex(bytes) !== stored.hash) {
      throw wrongObject(key, site.location, bytes);
    }
    this.#keys.add(session);
  }

  async #lookAtPacks(packs: readonly string[], state: RepositoryState): Promise<void> {
    const { deep, signal } = this.#options;
    await forEachConcurrent(
      packs,
      deep ? DEEP_CONCURRENCY : CONCURRENCY,
      async (pack, inner) => {
        const fault = await this.#faultOf(pack, state, inner);
        if (fault !== undefined) this.#faults.set(pack, fault);
      },
      signal,
    );
  }

  async #faultOf(
    pack: string,
    state: RepositoryState,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { repository } = this.#to;
    const named = getNamedPack(repository, state, pack);
    if (named === undefined) {
      // No fault that lasts: it may be live when the log is looked at again.
      this.#unnamed.add(pack);
      return undefined;
    }
    const { birth, sizeBytes } = named;
    const key = packKey(pack, birth);
    try {
      for (const { session } of originsOf(named.frames).origins) {
        if (session !== undefined) await this.#lookAtKey(session);
      }
      if (this.#options.deep) {
        const { site, sealer } = repository;
        freeBytes((await readPack(site, { pack, birth }, { sealer, signal })).bytes);
      }
    } catch (thrown) {
      if (thrown instanceof AppError && thrown.kind === "damaged") return thrown.message;
      throw thrown;
    }
    if (!this.#options.deep) {
      const head = await repository.site.head(key, { signal });
      if (head?.sizeBytes !== sizeBytes) {
        const found = head === undefined ? "is missing" : `has ${head.sizeBytes} bytes`;
        return `${key} at ${repository.site.location} ${found}, and must have ${sizeBytes}.`;
      }
    }
    this.packs += 1;
    this.bytes += sizeBytes;
    this.#options.onProgress?.({ packs: this.packs, bytes: this.bytes });
  }
}

function wrongObject(key: string, location: string, bytes: Uint8Array | undefined): AppError {
  const fault = bytes === undefined ? "is missing" : "does not match its hash";
  return new AppError("damaged", `${key} at ${location} ${fault}.`, { context: { key } });
}

function whyNotLive(to: CopySide, state: RepositoryState, pack: string): string | undefined {
  const { location } = to.repository.site;
  if (getNamedPack(to.repository, state, pack) === undefined) {
    return `pack ${pack} is not named by ${location}`;
  }
  return state.retired.has(pack) ? `pack ${pack} is retired at ${location}` : undefined;
}
