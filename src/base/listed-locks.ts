/**
 * Locks as Linux lists them: `/proc/locks` has one line for each, of `flock` too, which nothing else
 * tells of without taking the lock. A line names device and inode; where a file system gives files a
 * device number of its own (Btrfs, overlays), the one of the mount counts. False on other systems.
 */
import { readFileSync } from "node:fs";
import type { FileStat } from "./doors.ts";

/** True if a lock on the file is listed. A handle helps to find its mount. */
export function hasListedLock(
  stat: Pick<FileStat, "device" | "inode">,
  handle: number | undefined,
): boolean {
  if (process.platform !== "linux") return false;
  const places = locksOf(read("/proc/locks"), stat.inode, process.pid);
  if (places.length === 0) return false;
  if (places.includes(deviceText(stat.device))) return true;
  const mount = handle === undefined ? undefined : deviceOfMount(handle);
  return mount !== undefined && places.includes(mount);
}

/** Devices, as `major:minor` in decimal, of others' locks on inodes of this number. */
export function locksOf(table: string, inode: bigint, ownPid: number): string[] {
  const devices: string[] = [];
  // `1: FLOCK  ADVISORY  WRITE 4242 08:01:131 0 EOF`; who waits for a lock has an arrow before it.
  for (const line of table.split("\n")) {
    const found = / (-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) /.exec(line);
    if (found === null || line.includes("->") || / (?:LEASE|DELEG) /.test(line)) continue;
    const [, pid = "", major = "", minor = "", number = ""] = found;
    if (Number(pid) === ownPid) continue;
    if (BigInt(number) === inode) devices.push(`${parseInt(major, 16)}:${parseInt(minor, 16)}`);
  }
  return devices;
}

/** As glibc takes a device number apart. */
function deviceText(device: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n);
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

function deviceOfMount(handle: number): string | undefined {
  const id = /^mnt_id:\s*(\d+)$/m.exec(read(`/proc/self/fdinfo/${handle}`))?.[1];
  if (id === undefined) return undefined;
  for (const line of read("/proc/self/mountinfo").split("\n")) {
    const [mount, , device] = line.split(" ");
    if (mount === id) return device;
  }
  return undefined;
}

/** Empty where a kernel or a container does not show it. */
function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
