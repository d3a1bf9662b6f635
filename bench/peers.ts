/**
 * The other tools: how each is told to do what we do. All are set as near to "zstd at a low level, no
 * encryption" as they allow (restic, rustic, kopia and bupstash always encrypt). A tool that is not
 * on the PATH is left out and named. `cp`, `rsync` and `tar` back up nothing twice over: they are
 * the limits of reading, writing and compressing.
 */
import { join } from "node:path";
import type { Command } from "./measure.ts";

/** Where one tool works. All folders are its own, and empty at first. */
export type Place = {
  readonly source: string;
  readonly repository: string;
  /** Caches, keys, settings. */
  readonly home: string;
};

/** One tool. Backups are named `1`, `2`, …; what a tool cannot do is left out. */
export type Peer = {
  readonly name: string;
  /** The program that must be there. */
  readonly program: string;
  readonly version: readonly string[];
  readonly note: string;
  /** Not a backup tool: shown, and never the best peer. */
  readonly isLimit?: boolean;
  readonly init?: (place: Place) => readonly Command[];
  readonly backup: (place: Place, name: string) => readonly Command[];
  /** Into an empty folder; afterwards the files lie below it as they lay below the source. */
  readonly restore: (place: Place, name: string, target: string) => readonly Command[];
  readonly list?: (place: Place) => readonly Command[];
  /** Drops all backups but the last, of which these are the names, and gives the space back. */
  readonly drop?: (place: Place, names: readonly string[]) => readonly Command[];
};

const PASSWORD = "benchmark";

/** All tools that the benchmark knows. */
export const PEERS: readonly Peer[] = [
  restic(),
  borg(),
  rustic(),
  kopia(),
  bupstash(),
  conserve(),
  copy(),
  rsync(),
  tar(),
];

/** The tools of which a run takes all that are there, unless told. */
export const PEERS_DEFAULT: readonly string[] = ["restic", "borg", "cp", "rsync", "tar"];

/** The tool's own words on its version; undefined if it is not there. */
export function findVersion(peer: Peer): string | undefined {
  if (Bun.which(peer.program) === null) return undefined;
  const { stdout, stderr } = Bun.spawnSync([...peer.version]);
  const text = `${stdout.toString()}\n${stderr.toString()}`;
  return /\d+\.\d+(\.\d+)?[\w.-]*/.exec(text)?.[0] ?? "unknown";
}

function restic(): Peer {
  const run = (place: Place, ...args: string[]): Command => ({
    argv: ["restic", "-r", place.repository, "--cache-dir", join(place.home, "cache"), ...args],
    cwd: place.source,
    env: { RESTIC_PASSWORD: PASSWORD, HOME: place.home },
  });
  return {
    name: "restic",
    program: "restic",
    version: ["restic", "version"],
    note: "encrypts; compression auto",
    init: (place) => [run(place, "init")],
    backup: (place, name) => [run(place, "backup", "--tag", name, ".")],
    restore: (place, name, target) => [
      run(place, "restore", "latest", "--tag", name, "--target", target),
    ],
    list: (place) => [run(place, "snapshots")],
    drop: (place) => [run(place, "forget", "--keep-last", "1", "--prune")],
  };
}

function borg(): Peer {
  const run = (place: Place, cwd: string, ...args: string[]): Command => ({
    argv: ["borg", ...args],
    cwd,
    env: {
      BORG_BASE_DIR: place.home,
      BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: "yes",
      BORG_RELOCATED_REPO_ACCESS_IS_OK: "yes",
      BORG_DELETE_I_KNOW_WHAT_I_AM_DOING: "YES",
    },
  });
  return {
    name: "borg",
    program: "borg",
    version: ["borg", "--version"],
    note: "-e none -C zstd,1",
    init: (place) => [run(place, place.source, "init", "-e", "none", place.repository)],
    backup: (place, name) => [
      run(place, place.source, "create", "-C", "zstd,1", `${place.repository}::${name}`, "."),
    ],
    restore: (place, name, target) => [
      run(place, target, "extract", `${place.repository}::${name}`),
    ],
    list: (place) => [run(place, place.source, "list", place.repository)],
    drop: (place, names) => [
      run(place, place.source, "delete", place.repository, ...names),
      run(place, place.source, "compact", place.repository),
    ],
  };
}

function rustic(): Peer {
  const run = (place: Place, ...args: string[]): Command => ({
    argv: [
      "rustic",
      "-r",
      place.repository,
      "--password",
      PASSWORD,
      "--cache-dir",
      join(place.home, "cache"),
      ...args,
    ],
    cwd: place.source,
    env: { HOME: place.home },
  });
  return {
    name: "rustic",
    program: "rustic",
    version: ["rustic", "--version"],
    note: "encrypts; zstd 0",
    init: (place) => [run(place, "init", "--set-compression", "1")],
    backup: (place, name) => [run(place, "backup", "--as-path", "/", "--tag", name, ".")],
    restore: (place, _name, target) => [run(place, "restore", "latest", target)],
    list: (place) => [run(place, "snapshots")],
    drop: (place) => [run(place, "forget", "--keep-last", "1", "--prune", "--instant-delete")],
  };
}

function kopia(): Peer {
  const run = (place: Place, ...args: string[]): Command => ({
    argv: ["kopia", "--config-file", join(place.home, "kopia.config"), ...args],
    cwd: place.source,
    env: { KOPIA_PASSWORD: PASSWORD, HOME: place.home, KOPIA_CHECK_FOR_UPDATES: "false" },
  });
  return {
    name: "kopia",
    program: "kopia",
    version: ["kopia", "--version"],
    note: "encrypts; zstd-fastest",
    init: (place) => [
      run(
        place,
        "repository",
        "create",
        "filesystem",
        "--path",
        place.repository,
        "--cache-directory",
        join(place.home, "cache"),
      ),
      run(place, "policy", "set", "--global", "--compression", "zstd-fastest"),
    ],
    backup: (place, name) => [
      run(place, "snapshot", "create", "--tags", `run:${name}`, place.source),
    ],
    restore: (place, _name, target) => [
      run(place, "restore", "--snapshot-time", "latest", place.source, target),
    ],
    list: (place) => [run(place, "snapshot", "list")],
  };
}

function bupstash(): Peer {
  const run = (place: Place, ...args: string[]): Command => ({
    argv: ["bupstash", ...args],
    cwd: place.source,
    env: {
      HOME: place.home,
      BUPSTASH_REPOSITORY: place.repository,
      BUPSTASH_KEY: join(place.home, "key"),
      BUPSTASH_SEND_LOG: join(place.home, "send-log"),
      BUPSTASH_QUERY_CACHE: join(place.home, "query-cache"),
    },
  });
  return {
    name: "bupstash",
    program: "bupstash",
    version: ["bupstash", "version"],
    note: "encrypts; zstd 3",
    init: (place) => [run(place, "init"), run(place, "new-key", "-o", join(place.home, "key"))],
    backup: (place, name) => [run(place, "put", "--quiet", `run=${name}`, place.source)],
    restore: (place, name, target) => [
      run(place, "restore", "--quiet", "--into", target, `run=${name}`),
    ],
    list: (place) => [run(place, "list")],
    drop: (place, names) => [
      run(place, "rm", "--allow-many", names.map((name) => `run=${name}`).join(" or ")),
      run(place, "gc"),
    ],
  };
}

function conserve(): Peer {
  const run = (...args: string[]): Command => ({ argv: ["conserve", "--no-progress", ...args] });
  return {
    name: "conserve",
    program: "conserve",
    version: ["conserve", "--version"],
    note: "no encryption; snappy",
    init: (place) => [run("init", place.repository)],
    backup: (place) => [run("backup", place.repository, place.source)],
    restore: (place, _name, target) => [run("restore", place.repository, target)],
    list: (place) => [run("versions", place.repository)],
  };
}

function copy(): Peer {
  const to = (place: Place, name: string): string => join(place.repository, name);
  return {
    name: "cp",
    program: "cp",
    version: ["cp", "--version"],
    note: "limit: a plain copy",
    isLimit: true,
    backup: (place, name) => [{ argv: ["cp", "-a", `${place.source}/.`, to(place, name)] }],
    restore: (place, name, target) => [{ argv: ["cp", "-a", `${to(place, name)}/.`, target] }],
    drop: (place, names) => [{ argv: ["rm", "-rf", ...names.map((name) => to(place, name))] }],
  };
}

function rsync(): Peer {
  const to = (place: Place): string => join(place.repository, "copy");
  return {
    name: "rsync",
    program: "rsync",
    version: ["rsync", "--version"],
    note: "limit: a mirror, no history",
    isLimit: true,
    backup: (place) => [{ argv: ["rsync", "-a", "--delete", `${place.source}/`, to(place)] }],
    restore: (place, _name, target) => [{ argv: ["rsync", "-a", `${to(place)}/`, target] }],
  };
}

function tar(): Peer {
  const to = (place: Place, name: string): string => join(place.repository, `${name}.tar.zst`);
  return {
    name: "tar",
    program: "zstd",
    version: ["zstd", "--version"],
    note: "limit: tar | zstd -1 -T2, no deduplication",
    isLimit: true,
    backup: (place, name) => [
      {
        argv: ["sh", "-c", 'tar cf - . | zstd -q -1 -T2 -o "$1"', "sh", to(place, name)],
        cwd: place.source,
      },
    ],
    restore: (place, name, target) => [
      { argv: ["sh", "-c", 'zstd -qdc "$1" | tar xf -', "sh", to(place, name)], cwd: target },
    ],
    drop: (place, names) => [{ argv: ["rm", "-f", ...names.map((name) => to(place, name))] }],
  };
}
