/** A node's share of a backup as files in memory, for tests of the verifier. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Json } from "../../../src/products/product.ts";
import type { StoredFile, VerifiableShare } from "../../../src/products/share-verifier.ts";

/** Contents by path: `commitlogs/commitlog-0-1.db`, `data/default/0/…`. */
export type ShareFiles = Map<string, Uint8Array>;

/** Everything below a folder. */
export function readShareFiles(folder: string): ShareFiles {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile() && entry.name.endsWith(".db"));
  const paths = files.map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
  return new Map(paths.toSorted().map((path) => [path, readFileSync(join(folder, path))]));
}

/** As the core shows it: volumes of files, ascending by path, in pieces. */
export function shareOf(
  files: ShareFiles,
  state: { readonly [key: string]: Json } = {},
): VerifiableShare {
  const names = ["commitlogs", "snapshots", "data", "index"];
  return {
    node: "n1",
    state,
    signal: new AbortController().signal,
    volumes: names.map((name) => ({
      name,
      files: (prefix = "") => filesOf(files, name, prefix),
    })),
  };
}

async function* filesOf(
  files: ShareFiles,
  volume: string,
  prefix: string,
): AsyncGenerator<StoredFile> {
  const start = `${volume}/${prefix}`;
  for (const path of [...files.keys()].toSorted()) {
    const bytes = files.get(path);
    if (!path.startsWith(start) || bytes === undefined) continue;
    yield {
      path: path.slice(volume.length + 1),
      sizeBytes: bytes.length,
      read: ({ offset = 0, length = bytes.length }) => pieces(bytes.slice(offset, offset + length)),
    };
  }
}

/** One buffer for all pieces, as a reader may have it. */
async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  const buffer = new Uint8Array(50);
  for (let at = 0; at < bytes.length; at += buffer.length) {
    const piece = bytes.subarray(at, at + buffer.length);
    buffer.set(piece);
    await Promise.resolve();
    yield buffer.subarray(0, piece.length);
  }
}
