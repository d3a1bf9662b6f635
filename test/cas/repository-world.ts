/** What repository tests share: a clock that does not wait, seeded chance, catalogs in a directory. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realDatabases } from "../../src/base/databases.ts";
import type { Clock, Random } from "../../src/base/doors.ts";
import { AppError } from "../../src/base/error.ts";
import { Catalog } from "../../src/cas/catalog/catalog.ts";
import type { EntryDraft } from "../../src/cas/log/entry.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import type { CommitResult, RepositoryOptions } from "../../src/cas/log/repository.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { idOf } from "./log-builder.ts";

export const CHUNKER = { rule: "astacus-cdc-1", averageSizeBytes: 262_144 };

/** A virtual clock: a sleep yields to others and costs no time. */
export function quickClock(): Clock {
  let now = Date.UTC(2026, 10, 22, 18);
  return {
    now: () => now,
    monotonic: () => now,
    async sleep(ms, signal) {
      now += ms;
      await Promise.resolve();
      signal?.throwIfAborted();
    },
  };
}

/** Mulberry32: the same numbers for the same seed. */
export function seededRandom(seed: number): Random {
  let state = seed;
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
  return { bytes: (size) => Uint8Array.from({ length: size }, () => next() * 256), fraction: next };
}

/** A site with a repository, and catalogs that are removed with the world. */
export class World implements Disposable {
  readonly site = new MemorySite("primary");
  readonly doors = { clock: quickClock(), random: seededRandom(1) };
  readonly #folder = mkdtempSync(join(tmpdir(), "astacus-repository-"));
  readonly #catalogs: Catalog[] = [];
  #catalogCount = 0;

  static async create(): Promise<World> {
    const world = new World();
    await Repository.init(world.site, { doors: world.doors, chunker: CHUNKER });
    return world;
  }

  /** A path for a catalog of its own. */
  newPath(): string {
    this.#catalogCount += 1;
    return join(this.#folder, `catalog-${this.#catalogCount}.sqlite`);
  }

  /** Opens a catalog; it is closed with the world at the latest. */
  openCatalog(path: string = this.newPath()): Catalog {
    const catalog = Catalog.open(realDatabases, path);
    this.#catalogs.push(catalog);
    return catalog;
  }

  /** Opens the repository as a node that has seen nothing, unless a catalog is given. */
  async open(rest: Partial<RepositoryOptions> = {}): Promise<Repository> {
    const { site, doors } = this;
    const catalog = rest.catalog ?? this.openCatalog();
    return Repository.open({ site, doors, node: "a", ...rest, catalog });
  }

  /** Everything in the site, as another site with objects of its own. */
  copySite(): MemorySite {
    return new MemorySite("copy", new Map(this.site.objects));
  }

  [Symbol.dispose](): void {
    for (const catalog of this.#catalogs) {
      try {
        catalog[Symbol.dispose]();
      } catch {
        // Closed by the test already.
      }
    }
    rmSync(this.#folder, { recursive: true });
  }
}

/** Commits a draft under an operation of its own. */
export function commitDraft(repository: Repository, draft: EntryDraft): Promise<CommitResult> {
  return repository.commit(() => draft, { operation: idOf("operation") });
}

/** Commits notes. */
export async function commitNotes(repository: Repository, count: number): Promise<void> {
  for (let index = 0; index < count; index += 1) {
    await commitDraft(repository, { kind: "note", body: { text: String(index) } });
  }
}

/** A site where some calls are answered by the test. */
export function interceptSite(site: Site, calls: Partial<Site>): Site {
  return {
    name: site.name,
    location: site.location,
    get: calls.get ?? ((key, options) => site.get(key, options)),
    put: calls.put ?? ((key, bytes, options) => site.put(key, bytes, options)),
    head: calls.head ?? ((key, options) => site.head(key, options)),
    delete: calls.delete ?? ((keys, options) => site.delete(keys, options)),
    list: calls.list ?? ((prefix, options) => site.list(prefix, options)),
    ...(site.lock === undefined ? {} : { lock: site.lock }),
    [Symbol.asyncDispose]: () => site[Symbol.asyncDispose](),
  };
}

/** The AppError that a promise rejects with. */
export async function rejectionOf(promise: Promise<unknown>): Promise<AppError> {
  try {
    await promise;
  } catch (thrown) {
    if (thrown instanceof AppError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}
