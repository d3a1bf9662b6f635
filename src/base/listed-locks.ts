/**
 * Locks as Linux lists them: `/proc/locks` has one line for each, of `flock` too, which nothing else
 * tells of without taking the lock. A line names device and inode; where a file system gives files a
 * device number of its own (Btrfs, overlays), the one of the mount counts.
 */

/** Devices, as `major:minor` in decimal, of others' locks on inodes of this number. */
export function devicesOfLocks(table: string, inode: bigint, ownPid: number): string[] {
  const devices: string[] = [];
  // `1: FLOCK  ADVISORY  WRITE 4242 08:01:131 0 EOF`; who waits for a lock has an arrow before it.
  for (const line of table.split("\n")) {
    const found = / (-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) /.exec(line);
    if (found === null || line.includes("->") || / (?:LEASE|DELEG) /.test(line)) continue;
    const [, pid = "", major = "", minor = "", number = ""] = found;
    if (Number(pid) === ownPid || BigInt(number) !== inode) continue;
    devices.push(`${Number.parseInt(major, 16)}:${Number.parseInt(minor, 16)}`);
  }
  return devices;
}

/** A device number of a stat as `major:minor`, taken apart as glibc does. */
export function deviceText(device: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n);
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

/** The device of the mount that an open file lies in, out of its `fdinfo` and of `mountinfo`. */
export function deviceOfMount(fdinfo: string, mountinfo: string): string | undefined {
  const id = /^mnt_id:\s*(\d+)$/m.exec(fdinfo)?.[1];
  if (id === undefined) return undefined;
  for (const line of mountinfo.split("\n")) {
    const [mount, , device] = line.split(" ");
    if (mount === id) return device;
  }
  return undefined;
}
