/**
 * Directory sites: the contract, and what only a file system can do to them. Faults are put between
 * the site and node:fs/promises; durability is checked as the order of calls.
 */
import { afterAll, describe, expect, test } from "bun:test";
import * as realFiles from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DirectoryFiles } from "../../src/sites/directory-files.ts";
import { realDirectoryFiles } from "../../src/sites/directory-files.ts";
import { noise } from "../cas/noise.ts";
import { makeDirectorySite, openDirectorySite } from "../../src/sites/directory-site.ts";
import { keysOf, siteContract, text, thrownBy } from "./contract.ts";
import { StillClock } from "./still-clock.ts";

const BASE = await realFiles.mkdtemp(join(tmpdir(), "astacus-directory-site-"));
afterAll(async () => await realFiles.rm(BASE, { recursive: true }));

siteContract("a directory site", async () => {
  const path = await freshDirectory();
  const open = async () => await openDirectorySite({ name: "disk", path });
  return { site: await open(), reopen: open, [Symbol.asyncDispose]: async () => undefined };
});

describe("the root of a directory site", () => {
  test("is never made by opening, and its absence is told", async () => {
    const path = join(BASE, "absent");
    const error = await thrownBy(openDirectorySite({ name: "disk", path }));
    expect(error).toHaveProperty("kind", "not-found");
    expect(error).toHaveProperty("message", `file:${path} is not there.`);
    expect(await exists(path)).toBe(false);
  });

  test("must be a directory", async () => {
    const path = join(await freshDirectory(), "file");
    await realFiles.writeFile(path, "x");
    expect(await thrownBy(openDirectorySite({ name: "disk", path }))).toHaveProperty(
      "kind",
      "not-found",
    );
  });

  test("is made by one level only when asked for", async () => {
    const parent = await freshDirectory();
    const path = join(parent, "site");
    expect(await makeDirectorySite({ name: "disk", path })).toBe(true);
    expect(await makeDirectorySite({ name: "disk", path })).toBe(false);
    const deep = join(parent, "not-mounted", "site");
    expect(await thrownBy(makeDirectorySite({ name: "disk", path: deep }))).toHaveProperty(
      "kind",
      "not-found",
    );
    expect(await exists(join(parent, "not-mounted"))).toBe(false);
  });

  test("that was unmounted is an error of every call, not an empty store", async () => {
    const path = await freshDirectory();
    const site = await openDirectorySite({ name: "disk", path });
    await site.put("log/1", text("x"));
    for (const replace of [false, true]) {
      await realFiles.rename(path, `${path}-away`);
      if (replace) await realFiles.mkdir(path);
      for (const call of [
        async () => await site.get("log/1"),
        async () => await site.head("log/1"),
        async () => await site.put("log/2", text("x")),
        async () => await site.delete(["log/1"]),
        async () => await keysOf(site, ""),
      ]) {
        expect(await thrownBy(call())).toHaveProperty("kind", "not-found");
      }
      if (replace) expect(await realFiles.readdir(path)).toEqual([]);
      if (replace) await realFiles.rmdir(path);
      await realFiles.rename(`${path}-away`, path);
    }
    expect(await site.get("log/1")).toEqual(text("x"));
  });
});

describe("a put into a directory site", () => {
  test("syncs the file before the link, and all directories above after it", async () => {
    const path = await freshDirectory();
    const calls: string[] = [];
    const site = await openDirectorySite({ name: "disk", path, files: recorded(path, calls) });
    await site.put("pack/ab/1", text("x"));
    expect(calls.filter((call) => !/^(stat|lstat|readdir|open)/.test(call))).toEqual([
      "mkdir .tmp",
      "sync .tmp/*",
      "link pack/ab/1",
      "mkdir pack/ab",
      "mkdir pack",
      "mkdir pack/ab",
      "link pack/ab/1",
      "sync pack/ab",
      "sync pack",
      "sync ",
      "unlink .tmp/*",
    ]);
    calls.length = 0;
    await site.put("pack/ab/2", text("x"));
    expect(calls.filter((call) => call.startsWith("sync"))).toEqual([
      "sync .tmp/*",
      "sync pack/ab",
    ]);
  });

  test("that finds the key taken still makes the other's link durable", async () => {
    const path = await freshDirectory();
    await (await openDirectorySite({ name: "other", path })).put("log/1", text("x"));
    const calls: string[] = [];
    const site = await openDirectorySite({ name: "disk", path, files: recorded(path, calls) });
    expect(await site.put("log/1", text("y"))).toBe("exists");
    expect(calls.filter((call) => call.startsWith("sync"))).toEqual([
      "sync .tmp/*",
      "sync log",
      "sync ",
    ]);
  });

  test("or a removal syncs first what was read from others", async () => {
    const path = await freshDirectory();
    const other = await openDirectorySite({ name: "other", path });
    for (const key of ["log/1", "pack/ab/1"]) await other.put(key, text("x"));
    const calls: string[] = [];
    const site = await openDirectorySite({ name: "disk", path, files: recorded(path, calls) });
    await site.get("log/1");
    await site.put("pack/ab/2", text("x"));
    expect(calls.indexOf("sync log")).toBeLessThan(calls.indexOf("link pack/ab/2"));
    expect(calls.indexOf("sync log")).toBeGreaterThan(-1);
    calls.length = 0;
    await site.delete(["pack/ab/1"]);
    expect(calls.indexOf("sync log")).toBeGreaterThan(-1);
    expect(calls.indexOf("sync log")).toBeLessThan(calls.indexOf("unlink pack/ab/1"));
  });

  test("leaves no pack in the system's memory, once it is on disk", async () => {
    const path = await freshDirectory();
    const calls: string[] = [];
    const files: DirectoryFiles = {
      ...withSync(async (file) => {
        calls.push("sync");
        await file.sync();
      }),
      forgetCached: () => calls.push("forget"),
    };
    const site = await openDirectorySite({ name: "disk", path, files });
    await site.put("pack/ab/1", new Uint8Array(2 * 1024 * 1024));
    expect(calls.slice(0, 2)).toEqual(["sync", "forget"]);
    calls.length = 0;
    await site.put("log/1", text("x"));
    expect(calls).not.toContain("forget");
  });

  test("holds what it was given, however much of it passed the page cache by", async () => {
    const path = await freshDirectory();
    const bytes = noise(3 * 1024 * 1024 + 123, 1);
    const direct = realDirectoryFiles.writeDirect!;
    const ways: Record<string, NonNullable<DirectoryFiles["writeDirect"]>> = {
      system: direct,
      never: async () => 0,
      "in part": async (file, all) => await direct(file, all.subarray(0, 2_000_000)),
      "stopped between blocks": async (file, all) => {
        const handle = await realFiles.open(file, "r+");
        await handle.write(all, 0, 1_000_001, 0);
        await handle.close();
        return 1_000_001;
      },
    };
    for (const [way, writeDirect] of Object.entries(ways)) {
      const files = { ...realDirectoryFiles, writeDirect };
      const site = await openDirectorySite({ name: "disk", path, files });
      const key = way.replaceAll(" ", "-");
      expect(await site.put(key, bytes)).toBe("created");
      expect(Buffer.compare((await site.get(key))!, bytes)).toBe(0);
      // Not at a page's start in memory: some devices refuse that.
      expect(await site.put(`${key}-odd`, bytes.subarray(7))).toBe("created");
      expect(Buffer.compare((await site.get(`${key}-odd`))!, bytes.subarray(7))).toBe(0);
    }
  });

  test("writes on when its temporary file was swept meanwhile, and begins again", async () => {
    const path = await freshDirectory();
    let sweeps = 0;
    const writeDirect: DirectoryFiles["writeDirect"] = async (file, all) => {
      if (sweeps === 0) await realFiles.unlink(file);
      sweeps += 1;
      return (await realDirectoryFiles.writeDirect?.(file, all)) ?? 0;
    };
    const site = await openDirectorySite({
      name: "disk",
      path,
      files: { ...realDirectoryFiles, writeDirect },
    });
    const bytes = noise(2 * 1024 * 1024, 2);
    expect(await site.put("a", bytes)).toBe("created");
    expect(Buffer.compare((await site.get("a"))!, bytes)).toBe(0);
    expect(sweeps).toBe(2);
  });

  test("tells what a direct write ran into", async () => {
    const path = await freshDirectory();
    const writeDirect = async (): Promise<number> => {
      throw errno("ENOSPC");
    };
    const files = { ...realDirectoryFiles, writeDirect };
    const site = await openDirectorySite({ name: "disk", path, files });
    const failed = site.put("a", new Uint8Array(2 * 1024 * 1024));
    expect(failed).rejects.toMatchObject({ kind: "no-space" });
    await failed.catch(() => undefined);
    expect(await realFiles.readdir(join(path, ".tmp"))).toEqual([]);
  });

  test("whose sync fails starts over with a fresh file, and leaves no old one", async () => {
    const path = await freshDirectory();
    const synced: string[] = [];
    const files = withSync(async (file, name) => {
      synced.push(name);
      if (synced.length === 1) throw errno("EIO");
      await file.sync();
    });
    const site = await openDirectorySite({ name: "disk", path, files });
    expect(await site.put("a", text("x"))).toBe("created");
    expect(synced[0]).not.toBe(synced[1]);
    expect(await realFiles.readdir(join(path, ".tmp"))).toEqual([]);
    expect(await site.get("a")).toEqual(text("x"));
  });

  test("that runs out of space says how much is free, and leaves nothing", async () => {
    const path = await freshDirectory();
    const full = withSync(async () => {
      throw errno("ENOSPC");
    });
    // Its own bytes are free again as soon as they are taken away.
    const files: DirectoryFiles = {
      ...full,
      statfs: (async (place: string) => {
        const isThere = (await realFiles.readdir(join(path, ".tmp"))).length > 0;
        return Object.assign(await realFiles.statfs(place), { bavail: isThere ? 0 : 1000 });
      }) as unknown as DirectoryFiles["statfs"],
    };
    const site = await openDirectorySite({ name: "disk", path, files });
    const error = await thrownBy(site.put("a", text("x")));
    expect(error).toHaveProperty("kind", "no-space");
    expect(error).toHaveProperty("context.freeBytes", 0);
    expect(error).toHaveProperty(
      "message",
      expect.stringContaining("Free space then: 0 B, with a part of its 1 B written."),
    );
    expect(await realFiles.readdir(join(path, ".tmp"))).toEqual([]);
    expect(await keysOf(site, "")).toEqual([]);
  });

  test("whose link was made although it was reported as taken is created (NFS)", async () => {
    const path = await freshDirectory();
    const files: DirectoryFiles = {
      ...realFiles,
      async link(existing, created) {
        await realFiles.link(existing, created);
        throw errno("EEXIST");
      },
    };
    await realFiles.mkdir(join(path, "log"));
    const site = await openDirectorySite({ name: "disk", path, files });
    expect(await site.put("log/1", text("x"))).toBe("created");
  });

  test("whose temporary file was swept away is sent again", async () => {
    const path = await freshDirectory();
    let linkCount = 0;
    const files: DirectoryFiles = {
      ...realFiles,
      async link(existing, created) {
        linkCount += 1;
        if (linkCount === 1) await realFiles.unlink(existing);
        await realFiles.link(existing, created);
      },
    };
    const site = await openDirectorySite({ name: "disk", path, files });
    expect(await site.put("a", text("x"))).toBe("created");
  });

  test("onto a file system without hard links is refused", async () => {
    const files: DirectoryFiles = {
      ...realFiles,
      async link() {
        throw errno("EPERM");
      },
    };
    const site = await openDirectorySite({ name: "disk", path: await freshDirectory(), files });
    const error = await thrownBy(site.put("a", text("x")));
    expect(error).toHaveProperty("kind", "refused");
    expect(error).toHaveProperty("message", expect.stringContaining("hard links"));
  });

  test("that a cancel meets between write and link creates nothing", async () => {
    const path = await freshDirectory();
    const stop = new AbortController();
    const files = withSync(async (file) => {
      await file.sync();
      stop.abort();
    });
    const site = await openDirectorySite({ name: "disk", path, files });
    expect(await thrownBy(site.put("a", text("x"), { signal: stop.signal }))).toHaveProperty(
      "kind",
      "cancelled",
    );
    expect(await keysOf(site, "")).toEqual([]);
    expect(await realFiles.readdir(join(path, ".tmp"))).toEqual([]);
  });
});

describe("a directory site", () => {
  test("looks again for an object that its put found taken (NFS caches absence)", async () => {
    const path = await freshDirectory();
    await (await openDirectorySite({ name: "other", path })).put("log/1", text("theirs"));
    let missCount = 3;
    const files: DirectoryFiles = {
      ...realFiles,
      open: async (...args: Parameters<typeof realFiles.open>) => {
        if (String(args[0]).endsWith("log/1") && missCount > 0) {
          missCount -= 1;
          throw errno("ENOENT");
        }
        return await realFiles.open(...args);
      },
    };
    const clock = new StillClock();
    const site = await openDirectorySite({ name: "disk", path, files, clock });
    expect(await site.get("log/1")).toBeUndefined();
    expect(await site.put("log/1", text("ours"))).toBe("exists");
    expect(await site.get("log/1")).toEqual(text("theirs"));
    expect(clock.sleptMs).toHaveLength(2);
  });

  test("lists neither temporary nor foreign files", async () => {
    const path = await freshDirectory();
    const site = await openDirectorySite({ name: "disk", path });
    await site.put("log/1", text("x"));
    await realFiles.writeFile(join(path, ".tmp", "left"), "x");
    await realFiles.writeFile(join(path, "log", ".nfs0001"), "x");
    await realFiles.writeFile(join(path, "log", "with space"), "x");
    await realFiles.mkdir(join(path, "lost+found"));
    await realFiles.symlink("1", join(path, "log", "symlink"));
    expect(await keysOf(site, "")).toEqual(["log/1"]);
  });

  test("sweeps old temporary files of crashed writers, and no young ones", async () => {
    const path = await freshDirectory();
    await realFiles.mkdir(join(path, ".tmp"));
    for (const name of ["old", "young"]) await realFiles.writeFile(join(path, ".tmp", name), "x");
    await realFiles.utimes(join(path, ".tmp", "old"), 1_000_000, 1_000_000);
    const site = await openDirectorySite({ name: "disk", path });
    await site.put("a", text("x"));
    expect(await realFiles.readdir(join(path, ".tmp"))).toEqual(["young"]);
  });

  test("takes modes from its root", async () => {
    const path = await freshDirectory();
    await realFiles.chmod(path, 0o700);
    const site = await openDirectorySite({ name: "disk", path });
    await site.put("pack/a", text("x"));
    expect((await realFiles.stat(join(path, "pack"))).mode & 0o777).toBe(0o700);
    expect((await realFiles.stat(join(path, "pack", "a"))).mode & 0o777).toBe(0o600);
  });
});

let directoryCount = 0;

async function freshDirectory(): Promise<string> {
  directoryCount += 1;
  const path = join(BASE, `site-${directoryCount}`);
  await realFiles.mkdir(path);
  return path;
}

async function exists(path: string): Promise<boolean> {
  return await realFiles.lstat(path).then(
    () => true,
    () => false,
  );
}

function errno(code: string): Error {
  return Object.assign(new Error(code), { code });
}

/** Replaces `sync` of temporary files, and nothing else. */
function withSync(
  sync: (file: realFiles.FileHandle, name: string) => Promise<void>,
): DirectoryFiles {
  return {
    ...realFiles,
    open: async (...args: Parameters<typeof realFiles.open>) => {
      const file = await realFiles.open(...args);
      return args[1] === "wx"
        ? replaceSync(file, async () => await sync(file, String(args[0])))
        : file;
    },
  };
}

/** Writes down what is done to which path below the root. */
function recorded(root: string, calls: string[]): DirectoryFiles {
  const note = (what: string, path: unknown): void => {
    const below = String(path)
      .slice(root.length)
      .replace(/^\/+|\/+$/g, "");
    calls.push(`${what} ${below.replace(/^\.tmp\/.*/, ".tmp/*")}`);
  };
  return {
    ...realFiles,
    open: async (...args: Parameters<typeof realFiles.open>) => {
      note("open", args[0]);
      const file = await realFiles.open(...args);
      return replaceSync(file, async () => {
        note("sync", args[0]);
        await file.sync();
      });
    },
    async link(existing, created) {
      note("link", created);
      await realFiles.link(existing, created);
    },
    mkdir: (async (...args: Parameters<typeof realFiles.mkdir>) => {
      note("mkdir", args[0]);
      return await realFiles.mkdir(...args);
    }) as typeof realFiles.mkdir,
    async unlink(path) {
      note("unlink", path);
      await realFiles.unlink(path);
    },
  };
}

function replaceSync(file: realFiles.FileHandle, sync: () => Promise<void>): realFiles.FileHandle {
  return new Proxy(file, {
    get(target, name) {
      if (name === "sync") return sync;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
