/**
 * Removal of objects. An object is garbage if the state does not name it and its birth is at or below
 * the floor; then anybody may remove it, at any time, twice, late. Who removes does not believe who
 * committed: each pack is checked against the lists of all listed and pinned backups and all keeps,
 * read from hash-checked objects, and what is in use stays, with an alarm.
 */
import { getSegment } from "./moved-on.ts";
import { parseObjectKey } from "../format/object-name.ts";
import { packKey } from "../format/pack.ts";
import { getNamedPack } from "./pack-standing.ts";
import { RemovalBatches } from "./removal-batches.ts";
import type { RemovalOptions } from "./removal-batches.ts";
import type { Repository } from "../log/repository.ts";
import { birthOfPack, isDeletedPack } from "../log/state.ts";
import type { RepositoryState } from "../log/state.ts";
import type { UsedPacks } from "./used-packs.ts";

/** What was removed or must stay until its lock ends, and what was not. */
export type Removal = {
  objects: number;
  /** Where the size is known. */
  bytes: number;
  /** Objects that should have been garbage and are in use. */
  readonly alarms: string[];
};

/** Kinds of object whose listing is short: one for each backup, segment or checkpoint. */
const SHORT_PREFIXES = ["index/", "manifest/", "checkpoint/"] as const;

/** Packs that are looked up in the segments at once. */
const SUSPECT_COUNT_MAX = 50_000;

/**
 * Removes packs that a `delete` took, by id and birth. `used` was refreshed at `state`, and `state`
 * is at or after that entry.
 */
export async function removePacks(
  repository: Repository,
  state: RepositoryState,
  used: UsedPacks,
  packs: Iterable<{ readonly id: string; readonly birth: number; readonly sizeBytes: number }>,
  options: RemovalOptions = {},
): Promise<Removal> {
  const removal: Removal = { objects: 0, bytes: 0, alarms: [] };
  if (state.closed !== undefined) return removal;
  const batches = new RemovalBatches(repository.site, options);
  for (const { id, birth, sizeBytes } of packs) {
    const why = whyNotGarbage(repository, state, used, { id, birth });
    if (why !== undefined) {
      removal.alarms.push(`${packKey(id, birth)} was not removed: ${why}`);
      continue;
    }
    await batches.add(packKey(id, birth), sizeBytes);
    removal.objects += 1;
    removal.bytes += sizeBytes;
  }
  await batches.finish();
  return removal;
}

/**
 * Removes all garbage that a LIST of the site shows: of the short listings only, or of packs too.
 * What the catalog takes for an unknown pack is looked for in all current segments first.
 */
export async function sweepGarbage(
  repository: Repository,
  used: UsedPacks,
  options: SweepOptions,
): Promise<Removal> {
  const sweep = new Sweep(repository, used, options);
  // A closed site is left as it is: others may still copy from it.
  if (repository.state.closed !== undefined) return sweep.removal;
  for (const prefix of SHORT_PREFIXES) await sweep.listShort(prefix);
  if (options.packs) await sweep.listPacks();
  await sweep.finish();
  return sweep.removal;
}

/** How far a sweep goes. */
export type SweepOptions = RemovalOptions & {
  readonly packs: boolean;
  /** Counts what would be removed. */
  readonly isDryRun?: boolean;
};

/** One sweep. Whatever is garbage at its state stays garbage, so the state may grow old. */
class Sweep {
  readonly removal: Removal;
  readonly #repository: Repository;
  readonly #used: UsedPacks;
  readonly #options: SweepOptions;
  readonly #state: RepositoryState;
  readonly #batches: RemovalBatches;
  /** Packs that seem to be garbage, by `<id>-<birth>`, with their size. */
  readonly #suspects = new Map<string, number>();

  constructor(repository: Repository, used: UsedPacks, options: SweepOptions) {
    this.#repository = repository;
    this.#used = used;
    this.#options = options;
    this.#state = repository.state;
    this.#batches = new RemovalBatches(repository.site, options);
    this.removal = { objects: 0, bytes: 0, alarms: [...used.alarms] };
  }

  async listShort(prefix: string): Promise<void> {
    const { site } = this.#repository;
    for await (const { key, sizeBytes } of site.list(prefix, this.#call())) {
      const { kind, id, birth } = parseObjectKey(key);
      if (id === undefined || birth === undefined || birth > this.#state.floor) continue;
      if (isUnnamed(this.#state, { kind, id, birth })) await this.#remove(key, sizeBytes);
    }
  }

  async listPacks(): Promise<void> {
    const { site } = this.#repository;
    for await (const { key, sizeBytes } of site.list("pack/", this.#call())) {
      const { kind, id, birth } = parseObjectKey(key);
      if (kind !== "pack" || id === undefined || birth === undefined) continue;
      if (birth > this.#state.floor) continue;
      if (getNamedPack(this.#repository, this.#state, id)?.birth === birth) continue;
      const why = whyNotGarbage(this.#repository, this.#state, this.#used, { id, birth });
      if (why !== undefined) this.removal.alarms.push(`${key} was not removed: ${why}`);
      else this.#suspects.set(`${id}-${birth}`, sizeBytes);
      if (this.#suspects.size >= SUSPECT_COUNT_MAX) await this.#removeSuspects();
    }
  }

  async finish(): Promise<void> {
    await this.#removeSuspects();
    await this.#batches.finish();
  }

  async #removeSuspects(): Promise<void> {
    if (this.#suspects.size === 0) return;
    for (const ref of this.#state.segments.values()) {
      const segment = await getSegment(this.#repository, ref, this.#options.signal);
      // Merged by others meanwhile: their segments would have to be read instead. Another time.
      if (segment === undefined) return this.#suspects.clear();
      for (const pack of segment.packs) {
        if (isDeletedPack(this.#state, pack.id, pack.birth)) continue;
        const birth = birthOfPack(this.#state, pack.id, pack.birth);
        if (!this.#suspects.delete(`${pack.id}-${birth}`)) continue;
        const key = packKey(pack.id, birth);
        this.removal.alarms.push(`${key} was not removed: the catalog does not know it`);
      }
    }
    for (const [name, sizeBytes] of this.#suspects) {
      await this.#remove(`pack/${name.slice(0, 2)}/${name}`, sizeBytes);
    }
    this.#suspects.clear();
  }

  async #remove(key: string, sizeBytes: number): Promise<void> {
    if (this.#options.isDryRun !== true) await this.#batches.add(key, sizeBytes);
    this.removal.objects += 1;
    this.removal.bytes += sizeBytes;
  }

  #call(): { readonly signal?: AbortSignal } {
    const { signal } = this.#options;
    return signal === undefined ? {} : { signal };
  }
}

/** Why a pack that a caller takes for garbage is none. */
function whyNotGarbage(
  repository: Repository,
  state: RepositoryState,
  used: UsedPacks,
  pack: { readonly id: string; readonly birth: number },
): string | undefined {
  const { id, birth } = pack;
  if (birth > state.floor) return `its birth is above the floor ${state.floor}`;
  const named = getNamedPack(repository, state, id);
  if (named?.birth === birth) return "the log names it";
  // Under another birth it is in the state, and whoever uses the id uses that one.
  if (named !== undefined) return undefined;
  return used.has(id) ? "a backup or an operation needs it" : undefined;
}

function isUnnamed(
  state: RepositoryState,
  { kind, id, birth }: { readonly kind: string; readonly id: string; readonly birth: number },
): boolean {
  switch (kind) {
    case "index":
      return state.segments.get(id)?.birth !== birth;
    case "manifest":
      return !state.backups
        .values()
        .some(({ manifest }) => manifest.id === id && manifest.birth === birth);
    case "checkpoint": {
      const { checkpoint } = state;
      // Only older ones: one that nobody has named yet may be named by the next entry.
      return checkpoint !== undefined && birth < checkpoint.sequence && id !== checkpoint.hash;
    }
    default:
      return false;
  }
}
