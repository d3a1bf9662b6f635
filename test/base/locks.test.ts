/** Locks of other processes on the real disk: seen whichever call took them, and never taken. */
import { afterEach, describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { realFileSystem } from "../../src/base/file-system.ts";
import { deviceOfMount, devicesOfLocks, deviceText } from "../../src/base/listed-locks.ts";
import { temporaryFolder } from "../cas/temporary-folder.ts";

/** Takes a lock with libc, says so, and holds it until its input ends. */
const HOLDER = `
  const { dlopen } = require("bun:ffi");
  const fs = require("node:fs");
  const [path, kind] = process.argv.slice(1);
  const libc = dlopen("libc.so.6", {
    fcntl: { args: ["i32", "i32", "ptr"], returns: "i32" },
    flock: { args: ["i32", "i32"], returns: "i32" },
  }).symbols;
  const handle = fs.openSync(path, "r+");
  const lock = new DataView(new ArrayBuffer(32));
  lock.setInt16(0, kind.endsWith("shared") ? 0 : 1, true);
  const result = kind.startsWith("fcntl")
    ? libc.fcntl(handle, 6, new Uint8Array(lock.buffer))
    : libc.flock(handle, kind.endsWith("shared") ? 1 : 2);
  if (result !== 0) throw new Error("no lock");
  console.log("locked");
  process.stdin.on("data", () => {}).on("end", () => process.exit(0));
`;

const ended: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ended.splice(0)) await end();
});

/** Returns when the lock is held; ends it when called. */
async function hold(path: string, kind: string): Promise<() => Promise<void>> {
  const child = Bun.spawn([process.execPath, "-e", HOLDER, path, kind], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  const end = async (): Promise<void> => {
    await child.stdin.end();
    await child.exited;
  };
  ended.push(end);
  const { value } = await child.stdout.getReader().read();
  expect(new TextDecoder().decode(value)).toBe("locked\n");
  return end;
}

const KINDS = ["fcntl exclusive", "fcntl shared", "flock exclusive", "flock shared"];

describe.skipIf(process.platform !== "linux")("isLocked", () => {
  test.each(KINDS)("tells of a lock with %s while another process holds it", async (kind) => {
    using folder = temporaryFolder();
    const path = join(folder.path, "lock");
    fs.writeFileSync(path, "");
    expect(realFileSystem.isLocked(path)).toBe(false);
    const end = await hold(path, kind);
    expect(realFileSystem.isLocked(path)).toBe(true);
    // Asking took nothing and dropped nothing.
    expect(realFileSystem.isLocked(path)).toBe(true);
    await end();
    expect(realFileSystem.isLocked(path)).toBe(false);
  });

  test("is false for what is not there, for a file beside, and for a folder", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "lock");
    fs.writeFileSync(path, "");
    fs.writeFileSync(join(folder.path, "beside"), "");
    await hold(path, "flock exclusive");
    expect(realFileSystem.isLocked(join(folder.path, "absent"))).toBe(false);
    expect(realFileSystem.isLocked(join(path, "below"))).toBe(false);
    expect(realFileSystem.isLocked(join(folder.path, "beside"))).toBe(false);
    expect(realFileSystem.isLocked(folder.path)).toBe(false);
  });
});

const TABLE = [
  "1: POSIX  ADVISORY  WRITE 4242 08:1f:131 0 EOF",
  "1: -> POSIX  ADVISORY  WRITE 77 08:20:131 0 EOF",
  "2: FLOCK  ADVISORY  READ 1 00:2b:131 0 EOF",
  "3: LEASE  ACTIVE    READ 1 00:2c:131 0 EOF",
  "4: OFDLCK ADVISORY  WRITE -1 103:00:132 0 EOF",
  "",
].join("\n");

test("listed locks are found by inode, without leases, waiters and our own", () => {
  expect(devicesOfLocks(TABLE, 131n, 4)).toEqual(["8:31", "0:43"]);
  expect(devicesOfLocks(TABLE, 131n, 4242)).toEqual(["0:43"]);
  expect(devicesOfLocks(TABLE, 132n, 4)).toEqual(["259:0"]);
  expect(devicesOfLocks(TABLE, 13n, 4)).toEqual([]);
});

test("a device number is taken apart as the kernel lists it", () => {
  expect(deviceText(0x81fn)).toBe("8:31");
  expect(deviceText((0x1n << 44n) | 0x1_0000_0n | 0x2bn)).toBe("4096:299");
});

test("the mount of an open file says which device its locks are listed under", () => {
  const fdinfo = "pos:\t0\nflags:\t0100000\nmnt_id:\t29\nino:\t131\n";
  const mounts = "28 1 0:40 / / rw - overlay\n29 28 0:43 /sub /data rw shared:1 - btrfs /dev/sda\n";
  expect(deviceOfMount(fdinfo, mounts)).toBe("0:43");
  expect(deviceOfMount("pos:\t0\n", mounts)).toBeUndefined();
});
