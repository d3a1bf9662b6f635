/** What tests of restores share: disks, a repository with one backup, and every kind of file. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import type { FileSystem } from "../../src/base/doors.ts";
import { AppError } from "../../src/base/error.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import { readManifest } from "../../src/cas/format/manifest.ts";
import type { RestoreOptions, RestoreRunOptions } from "../../src/cas/read/restore-options.ts";
import { MemoryFileSystem } from "../simulation/memory-file-system.ts";
import { seededRandom } from "../sites/still-clock.ts";
import { noise } from "./noise.ts";
import type { BuilderOptions, TestFile } from "./repository-builder.ts";
import { RepositoryBuilder } from "./repository-builder.ts";

export const OUR_UID = process.getuid?.() ?? 0;
export const OUR_GID = process.getgid?.() ?? 0;
const NOW = { now: () => 1_800_000_000_000 };

/** Bytes of a text. */
export function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

/** A disk in memory with an empty folder `/t`. */
export function memoryDisk(rest: { capacityBytes?: number } = {}): MemoryFileSystem {
  const files = new MemoryFileSystem({ clock: NOW, uid: OUR_UID, gid: OUR_GID, ...rest });
  files.makeDirectory("/t");
  files.syncDirectory("/");
  return files;
}

/** Real temporary directory or memory, with a place for the target. */
export function disk(kind: "real" | "memory"): Disposable & { files: FileSystem; root: string } {
  if (kind === "memory") {
    return { files: memoryDisk(), root: "/t", [Symbol.dispose]: () => undefined };
  }
  const root = mkdtempSync(`${tmpdir()}/astacus-restore-`);
  const remove = (): void => rmSync(root, { recursive: true, force: true });
  return { files: realFileSystem, root, [Symbol.dispose]: remove };
}

/** Every kind of thing that a listing can hold. */
export function everyKind(): TestFile[] {
  const holes = new Uint8Array(40_000);
  holes.set(noise(3000, 5), 20_000);
  const ours = { uid: OUR_UID, gid: OUR_GID };
  const files: TestFile[] = [
    { path: "a", mode: 0o750, mtimeNs: 1_600_000_000_000_000_001n },
    { path: "a-b", content: text("sorts between a and a/b") },
    { path: "a/b", content: noise(9000, 1), mode: 0o600, mtimeNs: 999_999_999n },
    { path: "a/closed", mode: 0o555 },
    { path: "a/closed/in", content: text("in a directory that nobody may write to") },
    { path: "a/empty", mode: 0o700, mtimeNs: 5n },
    { path: "a/same", content: noise(9000, 1), mode: 0o444 },
    { path: "b", hardlink: "a/b" },
    { path: "dangling", symlink: "/nowhere/at/all" },
    { path: "ghost", symlink: "\xff\xfe" },
    { path: "holes", content: holes, sparse: true },
    { path: "nothing", content: new Uint8Array(0), mtimeNs: 1n },
    { path: "many", content: noise(30_000, 2), isTree: true },
    { path: "na\xefve", content: text("no UTF-8") },
    { path: "run-as", content: text("#!"), mode: 0o4755 },
    { path: "z", hardlink: "a/b" },
  ];
  return files.map((file) => ({ ...file, ...ours }));
}

/** What a restore needs of a repository. */
export type Prepared = Disposable & Pick<RestoreOptions, "listing" | "source">;

/** A repository with one backup of these files, and what a restore needs of it. */
export async function prepare(
  files: readonly TestFile[],
  options: BuilderOptions = {},
): Promise<Prepared & { readonly builder: RepositoryBuilder }> {
  const builder = await RepositoryBuilder.create(options);
  const record = await builder.backup("one", { a: { data: files } });
  const manifest = await readManifest(builder.site, record);
  const listing = manifest.nodes[0]!.volumes[0]!.listing;
  const source = builder.source();
  return { builder, listing, source, [Symbol.dispose]: () => builder[Symbol.dispose]() };
}

/** Options of a restore to `target`. */
export function optionsOf(
  prepared: Prepared,
  rest: Pick<RestoreOptions, "files" | "target"> & Partial<RestoreRunOptions>,
): RestoreRunOptions {
  const { listing, source } = prepared;
  const random = seededRandom(11);
  return { listing, source, random, ownerPolicy: "recorded", extra: "keep", ...rest };
}

/** The AppError that a call fails with. */
export async function failureOf(attempt: () => Promise<unknown>): Promise<AppError> {
  try {
    await attempt();
  } catch (thrown) {
    if (thrown instanceof AppError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}

/** A file system with some calls replaced. */
export function withCalls(files: FileSystem, calls: Partial<FileSystem>): FileSystem {
  return new Proxy(files, {
    get(target, name) {
      const replaced: unknown = Reflect.get(calls, name);
      if (replaced !== undefined) return replaced;
      const value: unknown = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
