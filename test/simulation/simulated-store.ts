/**
 * Where a simulated cluster keeps its repository: an object store that is always durable, or a
 * directory on a disk of its own, reached through the real directory site, which a power cut takes
 * back to what was synced. Each process opens the store anew; all of them see the same shades.
 */
import type { Random } from "../../src/base/doors.ts";
import { AppError } from "../../src/base/error.ts";
import { openDirectorySite } from "../../src/sites/directory-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import { seededRandom } from "../sites/still-clock.ts";
import { memoryDirectory } from "./memory-directory.ts";
import { MemoryFileSystem } from "./memory-file-system.ts";
import { ShadedSite } from "./shaded-site.ts";
import type { Shades } from "./shaded-site.ts";
import { ProcessLife } from "./simulated-process.ts";
import type { VirtualClock } from "./virtual-clock.ts";

/** It may throw, or take its time. */
export type BeforePut = (key: string, signal: AbortSignal | undefined) => Promise<void> | undefined;

/** The kinds of store. */
export type StoreKind = "objects" | "directory";

const ROOT = "/mnt/repository";
const LATENCY_MS = 0.5;

/** See the file's header. */
export class SimulatedStore {
  readonly kind: StoreKind;
  readonly name: string;
  /** While it is, nobody gets an answer from it. */
  isDown = false;
  /** What happens before an object is put. */
  beforePut: BeforePut | undefined;
  /** What is wrong with which object, for everybody. */
  readonly shades: Shades = new Map();
  readonly #clock: VirtualClock;
  readonly #objects: MemorySite;
  readonly #disk: MemoryFileSystem;
  readonly #seed: number;
  #openCount = 0;

  constructor(kind: StoreKind, clock: VirtualClock, seed: number, name = "store") {
    this.kind = kind;
    this.name = name;
    this.#objects = new MemorySite(name);
    this.#clock = clock;
    this.#seed = seed;
    this.#disk = new MemoryFileSystem({ clock });
    for (const path of ["/mnt", ROOT]) this.#disk.makeDirectory(path, 0o700);
    for (const path of ["/", "/mnt"]) this.#disk.syncDirectory(path);
  }

  /** What an object store holds, for tests that put another in its place. */
  get objects(): Map<string, Uint8Array> {
    return this.#objects.objects;
  }

  /** The store as a process sees it that lives as long as `life`. */
  async open(life: ProcessLife = new ProcessLife()): Promise<Site> {
    const site = whileUp(await this.#open(life), () => !this.isDown);
    const put: Site["put"] = (key, bytes, options) =>
      this.beforePut?.(key, options?.signal)?.then(() => site.put(key, bytes, options)) ??
      site.put(key, bytes, options);
    return { ...site, put };
  }

  async #open(life: ProcessLife): Promise<Site> {
    if (this.kind === "objects") return new ShadedSite(this.#objects, this.shades);
    this.#openCount += 1;
    const random = seededRandom(this.#seed * 101 + this.#openCount);
    const clock = this.#clock;
    const disk = { files: this.#disk, clock, random, life, latencyMs: LATENCY_MS };
    const site = await openDirectorySite({
      name: this.name,
      path: ROOT,
      files: memoryDirectory(disk),
      clock,
    });
    return new ShadedSite(site, this.shades);
  }

  /** The power fails where the store is; an object store has power of its own. */
  cutPower(torn: Random | undefined): void {
    if (this.kind === "directory") this.#disk.crash(torn === undefined ? {} : { torn });
  }
}

/** The site; while it is not up, all calls fail as those to a dead server do. */
function whileUp(site: Site, isUp: () => boolean): Site {
  const mustBeUp = (): void => {
    if (!isUp()) throw new AppError("unavailable", `${site.name} does not answer`);
  };
  return {
    name: site.name,
    location: site.location,
    async get(key, options) {
      mustBeUp();
      return await site.get(key, options);
    },
    async put(key, bytes, options) {
      mustBeUp();
      return await site.put(key, bytes, options);
    },
    async head(key, options) {
      mustBeUp();
      return await site.head(key, options);
    },
    async delete(keys, options) {
      mustBeUp();
      await site.delete(keys, options);
    },
    async *list(prefix, options) {
      mustBeUp();
      yield* site.list(prefix, options);
    },
    [Symbol.asyncDispose]: () => site[Symbol.asyncDispose](),
  };
}
