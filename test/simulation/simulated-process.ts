/**
 * One process of a simulated node: its doors, behind a switch. Once the process is dead, nothing it
 * calls has an effect any more: what waits waits for ever, what is called at once throws. A hook sees
 * every call before and after its effect, and may kill the process at either point.
 */
import { Database } from "bun:sqlite";
import type { Clock, Databases, FileSystem, Random } from "../../src/base/doors.ts";
import type { ObjectHead, ObjectRow, Site, SiteCall } from "../../src/sites/site.ts";
import { never } from "./virtual-clock.ts";

/** Which door a call goes through; `disk` is that of a directory site. */
export type DoorName = "files" | "databases" | "site" | "disk" | "network";

/** Sees each call twice, by its number from 1: before its effect, and after it or its failure. */
export type DoorHook = (
  point: "before" | "after",
  door: DoorName,
  call: string,
  number: number,
) => void;

/** What a call to a door of a dead process throws, where it cannot wait for ever. */
export class ProcessDied extends Error {
  override readonly name = "ProcessDied";
}

/** The switch of a process. */
export class ProcessLife {
  hook: DoorHook | undefined;
  #isAlive = true;
  #callCount = 0;
  readonly #onDeath: (() => void)[] = [];

  get isAlive(): boolean {
    return this.#isAlive;
  }

  /** Resolves when the process dies. */
  get death(): Promise<undefined> {
    return new Promise((resolve) => {
      if (!this.#isAlive) resolve(undefined);
      this.onDeath(() => resolve(undefined));
    });
  }

  onDeath(run: () => void): void {
    this.#onDeath.push(run);
  }

  kill(): void {
    if (!this.#isAlive) return;
    this.#isAlive = false;
    for (const run of this.#onDeath) run();
  }

  /** For doors that answer at once. */
  sync<T>(door: DoorName, call: string, effect: () => T): T {
    const number = (this.#callCount += 1);
    this.#see("before", door, call, number);
    try {
      return effect();
    } finally {
      this.#see("after", door, call, number);
    }
  }

  /** For doors that let us wait. */
  async async<T>(door: DoorName, call: string, effect: () => Promise<T>): Promise<T> {
    if (!this.#isAlive) return never();
    const number = (this.#callCount += 1);
    this.hook?.("before", door, call, number);
    if (!this.#isAlive) return never();
    try {
      const result = await effect();
      return this.#isAfter(door, call, number) ? result : await never();
    } catch (thrown) {
      if (!this.#isAlive || !this.#isAfter(door, call, number)) return never();
      throw thrown;
    }
  }

  #isAfter(door: DoorName, call: string, number: number): boolean {
    if (this.#isAlive) this.hook?.("after", door, call, number);
    return this.#isAlive;
  }

  /** How many calls there were so far. */
  get callCount(): number {
    return this.#callCount;
  }

  #see(point: "before" | "after", door: DoorName, call: string, number: number): void {
    if (this.#isAlive) this.hook?.(point, door, call, number);
    if (!this.#isAlive) throw new ProcessDied(`${door}: ${call}`);
  }
}

/** Time that stands still for the dead. */
export function clockOf(clock: Clock, life: ProcessLife): Clock {
  return {
    now: () => clock.now(),
    monotonic: () => clock.monotonic(),
    async sleep(ms, signal) {
      try {
        await clock.sleep(ms, signal);
      } catch (thrown) {
        if (life.isAlive) throw thrown;
      }
      if (!life.isAlive) await never();
    },
  };
}

/** A disk that the dead cannot reach. */
export function filesOf(files: FileSystem, life: ProcessLife): FileSystem {
  const guard =
    <Args extends unknown[], Result>(name: string, call: (...args: Args) => Result) =>
    (...args: Args): Result =>
      life.sync("files", `${name} ${typeof args[0] === "string" ? args[0] : ""}`, () =>
        call(...args),
      );
  return {
    lstat: guard("lstat", (path) => files.lstat(path)),
    readDirectory: guard("readDirectory", (path) => files.readDirectory(path)),
    readLink: guard("readLink", (path) => files.readLink(path)),
    open: guard("open", (path, how) => files.open(path, how)),
    // A process that dies closes its files.
    close: (handle) => {
      if (life.isAlive) files.close(handle);
    },
    stat: guard("stat", (handle) => files.stat(handle)),
    read: guard("read", (handle, target, position) => files.read(handle, target, position)),
    write: guard("write", (handle, source, position) => files.write(handle, source, position)),
    truncate: guard("truncate", (handle, size) => files.truncate(handle, size)),
    sync: guard("sync", (handle) => files.sync(handle)),
    syncDirectory: guard("syncDirectory", (path) => files.syncDirectory(path)),
    makeDirectory: guard("makeDirectory", (path, mode) => files.makeDirectory(path, mode)),
    link: guard("link", (existing, created) => files.link(existing, created)),
    symlink: guard("symlink", (target, created) => files.symlink(target, created)),
    rename: guard("rename", (from, to) => files.rename(from, to)),
    unlink: guard("unlink", (path) => files.unlink(path)),
    removeDirectory: guard("removeDirectory", (path) => files.removeDirectory(path)),
    setMode: guard("setMode", (path, mode) => files.setMode(path, mode)),
    setOwner: guard("setOwner", (path, uid, gid) => files.setOwner(path, uid, gid)),
    setTimes: guard("setTimes", (path, mtimeNs) => files.setTimes(path, mtimeNs)),
    readXattrs: guard("readXattrs", (path) => files.readXattrs(path)),
    setXattr: guard("setXattr", (path, name, value) => files.setXattr(path, name, value)),
    dataRanges: guard("dataRanges", (handle, size) => files.dataRanges(handle, size)),
    isLocked: guard("isLocked", (path) => files.isLocked(path)),
    space: guard("space", (path) => files.space(path)),
  };
}

/** SQLite files of a node, by path; they outlive its processes. */
export type DatabaseImages = Map<string, Uint8Array>;

/**
 * SQLite for one process. What was committed when it dies is what the next one finds; the
 * connections of the dead go on working and reach nobody.
 */
export function databasesOf(images: DatabaseImages, life: ProcessLife): Databases {
  const open = new Map<Database, string>();
  const keep = (database: Database, path: string): void => {
    if (database.inTransaction) database.run("ROLLBACK");
    images.set(path, new Uint8Array(database.serialize()));
  };
  life.onDeath(() => {
    for (const [database, path] of open) keep(database, path);
    open.clear();
  });
  return {
    open(path) {
      return life.sync("databases", `open ${path}`, () => {
        const image = images.get(path);
        const database =
          image === undefined
            ? new Database(":memory:", { strict: true })
            : Database.deserialize(image, { strict: true });
        open.set(database, path);
        const { close, transaction } = database;
        database.close = (throwOnError) => {
          if (open.delete(database)) keep(database, path);
          close.call(database, throwOnError);
        };
        database.transaction = ((inside: (...args: never[]) => unknown) =>
          seenTransaction(transaction.call(database, inside), life)) as typeof transaction;
        return database;
      });
    },
    remove(path) {
      life.sync("databases", `remove ${path}`, () => images.delete(path));
    },
  };
}

type Transaction = ReturnType<Database["transaction"]>;

/** The dead may commit what they like: it lies in a connection that nobody keeps. */
function seenTransaction(transaction: Transaction, life: ProcessLife): Transaction {
  const see = (call: Transaction) =>
    ((...args: never[]) => {
      if (!life.isAlive) return call(...args);
      return life.sync("databases", "transaction", () => call(...args));
    }) as unknown as Transaction;
  const seen = see(transaction);
  seen.deferred = see(transaction.deferred as Transaction);
  seen.immediate = see(transaction.immediate as Transaction);
  seen.exclusive = see(transaction.exclusive as Transaction);
  return seen;
}

/** A site as one process reaches it, over a wire that takes time. */
export function siteOf(
  site: Site,
  life: ProcessLife,
  wire: { readonly clock: Clock; readonly random: Random; readonly latencyMs: number },
): Site {
  const travel = (): Promise<void> => wire.clock.sleep(wire.random.fraction() * wire.latencyMs);
  const call = <T>(name: string, options: SiteCall, effect: () => Promise<T>): Promise<T> =>
    life.async("site", name, async () => {
      await travel();
      options.signal?.throwIfAborted();
      const result = await effect();
      await travel();
      return result;
    });
  return {
    name: site.name,
    location: site.location,
    get: (key, options = {}): Promise<Uint8Array | undefined> =>
      call(`get ${key}`, options, () => site.get(key, options)),
    put: (key, bytes, options = {}): Promise<"created" | "exists"> =>
      call(`put ${key}`, options, () => site.put(key, bytes, options)),
    head: (key, options = {}): Promise<ObjectHead | undefined> =>
      call(`head ${key}`, options, () => site.head(key, options)),
    delete: (keys, options = {}): Promise<void> =>
      call(`delete ${keys[0] ?? ""}`, options, () => site.delete(keys, options)),
    async *list(prefix, options = {}): AsyncIterable<ObjectRow> {
      const rows = await call(`list ${prefix}`, options, async () => {
        const found: ObjectRow[] = [];
        for await (const row of site.list(prefix, options)) found.push(row);
        return found;
      });
      yield* rows;
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}
