/**
 * Programs built with the Go toolchain from a module whose go.mod and go.sum are part of the project,
 * so that the same sources are built everywhere. What was built lies in the cache under a name that
 * holds the version, appears there complete or not at all, and is built once.
 */
import * as fs from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import type { Missing } from "./missing.ts";

/** Programs of one module. */
export type GoModule = {
  /** With the version: `m3-1.5.0`. */
  readonly name: string;
  /** Holds go.mod, go.sum and tools.go. */
  readonly folder: string;
  /** Package path by the name of the program. */
  readonly programs: Readonly<Record<string, string>>;
  /** Free space that downloads, the build cache and the programs need together. */
  readonly megabytes: number;
};

/**
 * The folder in the cache that holds the programs; builds what is not there, which takes minutes.
 * Says what is missing if it cannot: Go, free space, or the network.
 */
export async function buildGoModule(module: GoModule): Promise<string | Missing> {
  const target = join(cacheBase(), module.name);
  const wanted = Object.entries(module.programs).filter(
    ([program]) => !fs.existsSync(join(target, program)),
  );
  if (wanted.length === 0) return target;
  if (Bun.which("go") === null) return { missing: "go toolchain" };
  fs.mkdirSync(target, { recursive: true });
  for (const path of [target, await goFolder("GOMODCACHE"), await goFolder("GOCACHE")]) {
    const free = freeMegabytes(path);
    if (free < module.megabytes) {
      return { missing: `${module.megabytes} MB free at ${path} (${free} MB are)` };
    }
  }
  // A folder of its own: Go writes nothing into the project, and a second build does not disturb.
  const work = fs.mkdtempSync(join(target, "build-"));
  try {
    fs.cpSync(module.folder, work, { recursive: true });
    for (const [program, packagePath] of wanted) {
      // Not beside the sources, where a folder may have this name.
      const output = join(work, "built", program);
      const failure = await build(work, output, packagePath);
      if (failure !== undefined) return { missing: `${module.name} (go build failed: ${failure})` };
      fs.renameSync(output, join(target, program));
    }
    return target;
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

async function build(
  work: string,
  output: string,
  packagePath: string,
): Promise<string | undefined> {
  const flags = ["-mod=readonly", "-buildvcs=false", "-trimpath"];
  const child = Bun.spawn(["nice", "go", "build", ...flags, "-o", output, packagePath], {
    cwd: work,
    env: { ...process.env, GOWORK: "off", GOFLAGS: "" },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const talk = await new Response(child.stderr).text();
  return (await child.exited) === 0 ? undefined : talk.trim().slice(-300);
}

/** Where things that tests need and that are built once are kept; ASTACUS_REAL_CACHE replaces it. */
export function cacheBase(): string {
  const { ASTACUS_REAL_CACHE, XDG_CACHE_HOME } = process.env;
  return ASTACUS_REAL_CACHE ?? join(XDG_CACHE_HOME ?? join(homedir(), ".cache"), "astacus-real");
}

async function goFolder(name: string): Promise<string> {
  return (await new Response(Bun.spawn(["go", "env", name]).stdout).text()).trim();
}

function freeMegabytes(path: string): number {
  let existing = path;
  while (!fs.existsSync(existing)) existing = dirname(existing);
  const { bavail, bsize } = fs.statfsSync(existing);
  return Math.floor((bavail * bsize) / 1_048_576);
}
