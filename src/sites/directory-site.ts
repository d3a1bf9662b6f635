/**
 * A site in a directory, local or on NFS. An object is written to a temporary file below
 * `<root>/.tmp/`, fsynced, given its name with `link()`, and its directories are fsynced: so it is
 * there whole or not at all, exactly one of many racing writers creates it, and what `put` has
 * acknowledged survives a power failure.
 *
 * The root is never created here, and must stay the directory that was opened: an unmounted disk
 * must not look like an empty repository. Memory: one object a call; promises, not sync calls, since
 * writing and syncing a pack of 32 MiB would hold up the event loop.
 */
import type * as nodeFiles from "node:fs/promises";
import { realClock } from "../base/clock.ts";
import type { Clock } from "../base/doors.ts";
import { getErrnoCode } from "../base/errno.ts";
import { AppError } from "../base/error.ts";
import { toHex } from "../base/hex.ts";
import { realRandom } from "../base/random.ts";
import { directoryError, linksRefused, rootMissing } from "./directory-error.ts";
import type { DirectoryFiles } from "./directory-files.ts";
import { isAbsence, readRange, realDirectoryFiles, syncPath, writeAll } from "./directory-files.ts";
import { listObjectFiles } from "./directory-listing.ts";
import { assertKeyPrefix, assertObjectBody, assertObjectKey } from "./object-key.ts";
import { cutRange, throwIfCancelled } from "./object-key.ts";
import type { ObjectHead, ObjectRow, Site, SiteCall } from "./site.ts";

/** Where a directory site lies. */
export type DirectorySiteOptions = {
  readonly name: string;
  /** Absolute, and there already. */
  readonly path: string;
  readonly files?: DirectoryFiles;
  /** Waits between looks at an object that must be there (NFS caches absence for a while). */
  readonly clock?: Pick<Clock, "sleep">;
};

const TEMPORARY_DIRECTORY = ".tmp";
/**
 * Packs, whose pages in memory a database beside us can use better: they go to the disk without a copy
 * there where that can be done, and are forgotten where not (docs/decisions.md, "What lies in the page
 * cache").
 */
const UNCACHED_SIZE_BYTES_MIN = 1024 * 1024;
const LINK_REFUSALS = new Set(["EPERM", "EOPNOTSUPP", "ENOTSUP", "ENOSYS", "EXDEV"]);
const WRITE_TRIES = 3;
const LOOK_AGAIN_MS = [10, 50, 250, 1000, 3000];
const KNOWN_KEYS_MAX = 10_000;
const TEMPORARY_AGE_MS_MAX = 2 * 24 * 3600 * 1000;

/**
 * Opens a directory as a site; it must exist.
 *
 * @example
 * await using site = await openDirectorySite({ name: "primary", path: "/backup" });
 * await site.put("pack/ab/0123-1", bytes);
 */
export async function openDirectorySite(options: DirectorySiteOptions): Promise<Site> {
  const files = options.files ?? realDirectoryFiles;
  const location = `file:${options.path}`;
  const where = { site: options.name, location };
  try {
    const root = await files.stat(options.path, { bigint: true });
    if (!root.isDirectory()) throw rootMissing(options.name, location, "is not a directory");
    return new DirectorySite(options, files, {
      device: root.dev,
      inode: root.ino,
      mode: root.mode,
    });
  } catch (thrown) {
    if (getErrnoCode(thrown) === "ENOENT" || getErrnoCode(thrown) === "ENOTDIR") {
      throw rootMissing(options.name, location, "is not there");
    }
    throw directoryError(thrown, where);
  }
}

/**
 * Makes the directory of a new site, one level only: for `site init`, which alone may. False if it
 * is there already. A missing parent is refused, since it is most likely a disk that is not mounted.
 */
export async function makeDirectorySite(options: {
  readonly name: string;
  readonly path: string;
  readonly files?: DirectoryFiles;
}): Promise<boolean> {
  const files = options.files ?? realDirectoryFiles;
  const location = `file:${options.path}`;
  const parent = parentOf(options.path.replace(/\/+$/, "")) || "/";
  try {
    await files.mkdir(options.path, { mode: 0o700 });
    await syncPath(files, parent);
    return true;
  } catch (thrown) {
    const code = getErrnoCode(thrown);
    if (code === "EEXIST") return false;
    if (code !== "ENOENT") throw directoryError(thrown, { site: options.name, location });
    throw new AppError("not-found", `${location} cannot be made: ${parent} is not there.`, {
      guidance: "Mount the disk, or make the parent directory by hand.",
      context: { site: options.name },
    });
  }
}

class DirectorySite implements Site {
  readonly name: string;
  readonly location: string;
  readonly #path: string;
  readonly #files: DirectoryFiles;
  readonly #root: { readonly device: bigint; readonly inode: bigint; readonly mode: bigint };
  readonly #clock: Pick<Clock, "sleep">;
  /** Directories whose own entry in their parent is known to be on disk. */
  readonly #durable = new Set<string>();
  /** Directories in which objects of others were seen, which those may not have synced yet. */
  readonly #seen = new Set<string>();
  /** Keys that a `put` found taken: absence is then a stale cache, and is asked again. */
  readonly #known = new Set<string>();
  #removedBefore = false;
  #sweptBefore = false;

  constructor(
    options: DirectorySiteOptions,
    files: DirectoryFiles,
    root: { readonly device: bigint; readonly inode: bigint; readonly mode: bigint },
  ) {
    this.name = options.name;
    this.location = `file:${options.path}`;
    this.#path = options.path.replace(/\/+$/, "") || "/";
    this.#files = files;
    this.#root = root;
    this.#clock = options.clock ?? realClock;
  }

  async get(
    key: string,
    options: SiteCall & { readonly offset?: number; readonly length?: number } = {},
  ): Promise<Uint8Array | undefined> {
    return await this.#look(key, options, async (path) => {
      const file = await this.#files.open(path, "r");
      try {
        const stat = await file.stat();
        if (!stat.isFile()) return undefined;
        const { start, end } = cutRange(options, stat.size);
        const bytes = await readRange(file, start, end);
        if (bytes === undefined) {
          throw new AppError("damaged", `${this.location}: ${key} became shorter while read.`, {
            context: { site: this.name, key },
          });
        }
        this.#seen.add(parentOf(key));
        return bytes;
      } finally {
        await file.close();
      }
    });
  }

  async head(key: string, options: SiteCall = {}): Promise<ObjectHead | undefined> {
    return await this.#look(key, options, async (path) => {
      const stat = await this.#files.lstat(path);
      if (!stat.isFile()) return undefined;
      this.#seen.add(parentOf(key));
      return { sizeBytes: stat.size };
    });
  }

  async put(
    key: string,
    bytes: Uint8Array,
    options: SiteCall & { readonly sha256?: string } = {},
  ): Promise<"created" | "exists"> {
    throwIfCancelled(options.signal);
    assertObjectKey(key);
    assertObjectBody(bytes);
    try {
      await this.#checkRoot();
      // Whoever builds on what he read makes it durable first: its writer may not have yet.
      await this.#syncSeen();
      for (let tryCount = 1; ; tryCount += 1) {
        const temporary = await this.#writeTemporary(bytes, { ...options, key, tryCount });
        if (temporary === undefined) continue;
        try {
          throwIfCancelled(options.signal);
          const outcome = await this.#link(temporary, key, tryCount);
          if (outcome === undefined) continue;
          await this.#syncUp(parentOf(key));
          // Unmounted while we wrote: the object lies in another directory, and is no object.
          await this.#checkRoot();
          if (outcome === "exists") this.#remember(key);
          return outcome;
        } finally {
          await this.#unlinkQuietly(temporary);
        }
      }
    } catch (thrown) {
      throw await this.#explain(thrown, key);
    }
  }

  async delete(keys: readonly string[], options: SiteCall = {}): Promise<void> {
    for (const key of keys) assertObjectKey(key);
    try {
      await this.#checkRoot();
      if (!this.#removedBefore) await this.#syncTop();
      this.#removedBefore = true;
      await this.#syncSeen();
      for (const key of keys) {
        throwIfCancelled(options.signal);
        this.#known.delete(key);
        try {
          await this.#files.unlink(`${this.#path}/${key}`);
        } catch (thrown) {
          if (!isAbsence(thrown)) throw thrown;
        }
      }
    } catch (thrown) {
      throw await this.#explain(thrown, keys[0]);
    }
  }

  async *list(
    prefix: string,
    options: SiteCall & { readonly after?: string } = {},
  ): AsyncIterable<ObjectRow> {
    assertKeyPrefix(prefix);
    throwIfCancelled(options.signal);
    try {
      await this.#checkRoot();
      for await (const row of listObjectFiles(this.#files, this.#path, prefix, options)) {
        yield row;
      }
      // A disk that went away in between would have looked like an empty rest.
      await this.#checkRoot();
    } catch (thrown) {
      throw await this.#explain(thrown);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing is held open between calls.
  }

  /** Runs `work`; absence is believed only if the root is still ours and nobody said otherwise. */
  async #look<T>(
    key: string,
    options: SiteCall,
    work: (path: string) => Promise<T>,
  ): Promise<T | undefined> {
    assertObjectKey(key);
    try {
      for (let look = 0; ; look += 1) {
        throwIfCancelled(options.signal);
        try {
          return await work(`${this.#path}/${key}`);
        } catch (thrown) {
          if (!isAbsence(thrown)) throw thrown;
        }
        await this.#checkRoot();
        const waitMs = this.#known.has(key) ? LOOK_AGAIN_MS[look] : undefined;
        if (waitMs === undefined) return undefined;
        await this.#clock.sleep(waitMs);
        // Reading the directory makes NFS ask the server again.
        await this.#files.readdir(`${this.#path}/${parentOf(key)}`).catch(() => []);
      }
    } catch (thrown) {
      throw await this.#explain(thrown, key);
    }
  }

  /** Undefined if a fresh temporary file should be tried: an fsync is never repeated on the old. */
  async #writeTemporary(
    bytes: Uint8Array,
    how: SiteCall & { readonly key: string; readonly tryCount: number },
  ): Promise<string | undefined> {
    const { key, tryCount, signal } = how;
    const temporary = `${this.#path}/${TEMPORARY_DIRECTORY}/${toHex(realRandom.bytes(16))}`;
    let written = false;
    try {
      const file = await this.#openTemporary(temporary);
      try {
        await this.#fill(file, temporary, bytes);
        throwIfCancelled(signal);
        await file.sync();
        if (bytes.length >= UNCACHED_SIZE_BYTES_MIN) this.#files.forgetCached?.(file);
        const { size, mtimeMs } = await file.stat();
        if (size !== bytes.length) {
          throw new AppError(
            "unavailable",
            `${this.location} kept ${size} of ${bytes.length} bytes.`,
          );
        }
        await this.#sweep(mtimeMs);
        written = true;
      } finally {
        await file.close();
      }
      return temporary;
    } catch (thrown) {
      const code = getErrnoCode(thrown);
      // While what was written of it lies there still: afterwards its space is free again.
      if (code === "ENOSPC") throw await this.#explain(thrown, key, bytes.length);
      if (code !== "EIO" || tryCount >= WRITE_TRIES) throw thrown;
      return undefined;
    } finally {
      if (!written) await this.#unlinkQuietly(temporary);
    }
  }

  async #fill(file: nodeFiles.FileHandle, path: string, bytes: Uint8Array): Promise<void> {
    const isLarge = bytes.length >= UNCACHED_SIZE_BYTES_MIN;
    const start = isLarge ? ((await this.#files.writeDirect?.(path, bytes)) ?? 0) : 0;
    await writeAll(file, bytes, start);
  }

  async #openTemporary(temporary: string): Promise<nodeFiles.FileHandle> {
    const mode = Number(this.#root.mode & 0o666n);
    try {
      return await this.#files.open(temporary, "wx", mode);
    } catch (thrown) {
      if (getErrnoCode(thrown) !== "ENOENT") throw thrown;
    }
    await this.#makeDirectory(TEMPORARY_DIRECTORY);
    return await this.#files.open(temporary, "wx", mode);
  }

  /** Undefined if somebody swept the temporary file away, and a fresh one is needed. */
  async #link(
    temporary: string,
    key: string,
    tryCount: number,
  ): Promise<"created" | "exists" | undefined> {
    const path = `${this.#path}/${key}`;
    try {
      await this.#files.link(temporary, path);
      return "created";
    } catch (thrown) {
      if (getErrnoCode(thrown) === "EEXIST") return await this.#whoseLink(temporary, path);
      if (LINK_REFUSALS.has(getErrnoCode(thrown) ?? "")) {
        throw linksRefused({ site: this.name, location: this.location }, thrown);
      }
      if (getErrnoCode(thrown) !== "ENOENT") throw thrown;
    }
    if (tryCount >= WRITE_TRIES) {
      throw new AppError(
        "unavailable",
        `${this.location} keeps losing files while they are written.`,
      );
    }
    await this.#makeDirectory(parentOf(key));
    try {
      await this.#files.link(temporary, path);
      return "created";
    } catch (thrown) {
      if (getErrnoCode(thrown) === "EEXIST") return await this.#whoseLink(temporary, path);
      if (getErrnoCode(thrown) === "ENOENT") return undefined;
      throw thrown;
    }
  }

  /** NFS repeats a `link` whose answer was lost, and then says EEXIST about our own success. */
  async #whoseLink(temporary: string, path: string): Promise<"created" | "exists"> {
    const own = await this.#files.lstat(temporary, { bigint: true });
    if (own.nlink < 2n) return "exists";
    const taken = await this.#files.lstat(path, { bigint: true });
    return own.dev === taken.dev && own.ino === taken.ino ? "created" : "exists";
  }

  /** Makes a directory below the root and its parents, never the root itself. */
  async #makeDirectory(relative: string): Promise<void> {
    if (relative === "") return await this.#checkRoot();
    const mode = Number(this.#root.mode & 0o777n);
    try {
      await this.#files.mkdir(`${this.#path}/${relative}`, { mode });
    } catch (thrown) {
      if (getErrnoCode(thrown) === "EEXIST") return;
      if (getErrnoCode(thrown) !== "ENOENT") throw thrown;
      await this.#makeDirectory(parentOf(relative));
      await this.#makeDirectory(relative);
    }
  }

  /** Syncs a directory, and the entries of it and its parents if this was never done. */
  async #syncUp(relative: string): Promise<void> {
    // Taken off before the sync begins: what is read while it runs may miss it.
    const wasSeen = this.#seen.delete(relative);
    try {
      await syncPath(this.#files, `${this.#path}/${relative}`);
    } catch (thrown) {
      if (wasSeen && !isAbsence(thrown)) this.#seen.add(relative);
      throw thrown;
    }
    for (let child = relative; child !== "" && !this.#durable.has(child); child = parentOf(child)) {
      await syncPath(this.#files, `${this.#path}/${parentOf(child)}`);
      this.#durable.add(child);
    }
  }

  async #syncSeen(): Promise<void> {
    const seen = [...this.#seen];
    for (const relative of seen) {
      try {
        await this.#syncUp(relative);
      } catch (thrown) {
        if (!isAbsence(thrown)) throw thrown;
      }
    }
  }

  /** Before the first removal: a former process may have read entries and died before a sync. */
  async #syncTop(): Promise<void> {
    for (const entry of await this.#files.readdir(this.#path, { withFileTypes: true })) {
      if (entry.isDirectory() && !entry.name.startsWith(".")) this.#seen.add(entry.name);
    }
    await syncPath(this.#files, this.#path);
  }

  /** Removes what crashed writers left; age is by the file system's own clock, and only policy. */
  async #sweep(nowMs: number): Promise<void> {
    if (this.#sweptBefore) return;
    this.#sweptBefore = true;
    const directory = `${this.#path}/${TEMPORARY_DIRECTORY}`;
    for (const name of await this.#files.readdir(directory)) {
      try {
        const { mtimeMs } = await this.#files.lstat(`${directory}/${name}`);
        if (mtimeMs < nowMs - TEMPORARY_AGE_MS_MAX)
          await this.#files.unlink(`${directory}/${name}`);
      } catch (thrown) {
        if (!isAbsence(thrown)) throw thrown;
      }
    }
  }

  async #checkRoot(): Promise<void> {
    try {
      const root = await this.#files.stat(this.#path, { bigint: true });
      if (root.dev === this.#root.device && root.ino === this.#root.inode) return;
    } catch (thrown) {
      if (!isAbsence(thrown)) throw thrown;
      throw rootMissing(this.name, this.location, "is not there any more");
    }
    throw rootMissing(this.name, this.location, "is not the directory any more that was opened");
  }

  async #unlinkQuietly(path: string): Promise<void> {
    try {
      await this.#files.unlink(path);
    } catch {
      // Never an object: if it stays, a later sweep takes it.
    }
  }

  #remember(key: string): void {
    if (this.#known.size >= KNOWN_KEYS_MAX) this.#known.clear();
    this.#known.add(key);
  }

  async #explain(thrown: unknown, key?: string, sizeBytes?: number): Promise<AppError> {
    const where = {
      site: this.name,
      location: this.location,
      ...(key === undefined ? {} : { key }),
      ...(sizeBytes === undefined ? {} : { sizeBytes }),
    };
    // What a quota leaves is not told by the file system.
    if (getErrnoCode(thrown) !== "ENOSPC") return directoryError(thrown, where);
    const space = await this.#files.statfs(this.#path).catch(() => undefined);
    if (space === undefined) return directoryError(thrown, where);
    const { bavail, bsize, files, ffree } = space;
    const isOutOfFiles = files > 0 && ffree === 0;
    return directoryError(thrown, { ...where, freeBytes: bavail * bsize, isOutOfFiles });
  }
}

function parentOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "" : path.slice(0, slash);
}
