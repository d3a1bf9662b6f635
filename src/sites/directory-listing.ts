/**
 * The listing of a directory site: a walk in the byte order of whole keys, with the names of one
 * directory a level in memory. Names that no object can have (temporary files, `lost+found`, what
 * NFS leaves) are passed over.
 */
import type { DirectoryFiles } from "./directory-files.ts";
import { isAbsence } from "./directory-files.ts";
import { isObjectKey, throwIfCancelled } from "./object-key.ts";
import type { ObjectRow, SiteCall } from "./site.ts";

const STAT_BATCH_COUNT = 32;

/** All object files below `root` whose key starts with `prefix` and is greater than `after`. */
export async function* listObjectFiles(
  files: DirectoryFiles,
  root: string,
  prefix: string,
  options: SiteCall & { readonly after?: string },
): AsyncIterable<ObjectRow> {
  // Everything of the prefix up to its last slash is a directory that must be there.
  const start = prefix.slice(0, prefix.lastIndexOf("/") + 1);
  yield* walk(files, root, start, prefix, options);
}

/** `base` is "" or ends with a slash. */
async function* walk(
  files: DirectoryFiles,
  root: string,
  base: string,
  prefix: string,
  options: SiteCall & { readonly after?: string },
): AsyncIterable<ObjectRow> {
  const after = options.after ?? "";
  throwIfCancelled(options.signal);
  let batch: string[] = [];
  for (const name of await sortedNames(files, `${root}/${base}`)) {
    const key = base + name;
    const isDirectory = name.endsWith("/");
    if (!(key.startsWith(prefix) || (isDirectory && prefix.startsWith(key)))) continue;
    // A directory may hold keys after `after` even if its own name is before it.
    if (key <= after && !(isDirectory && after.startsWith(key))) continue;
    if (!isDirectory) batch.push(key);
    if (isDirectory || batch.length >= STAT_BATCH_COUNT) {
      yield* rowsOf(files, root, batch);
      batch = [];
      throwIfCancelled(options.signal);
    }
    if (isDirectory) yield* walk(files, root, key, prefix, options);
  }
  yield* rowsOf(files, root, batch);
}

/** Directories get a slash before sorting, so that `a-b` comes before what lies in `a/`. */
async function sortedNames(files: DirectoryFiles, path: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for (const entry of await files.readdir(path, { withFileTypes: true })) {
      if (!isObjectKey(entry.name)) continue;
      if (entry.isDirectory()) names.push(`${entry.name}/`);
      else if (entry.isFile() || !entry.isSymbolicLink()) names.push(entry.name);
    }
  } catch (thrown) {
    if (!isAbsence(thrown)) throw thrown;
  }
  return names.toSorted();
}

async function* rowsOf(
  files: DirectoryFiles,
  root: string,
  keys: readonly string[],
): AsyncIterable<ObjectRow> {
  const sizes = await Promise.all(
    keys.map(async (key) => {
      try {
        return (await files.lstat(`${root}/${key}`)).size;
      } catch (thrown) {
        if (isAbsence(thrown)) return undefined;
        throw thrown;
      }
    }),
  );
  for (const [index, key] of keys.entries()) {
    const sizeBytes = sizes[index];
    if (sizeBytes !== undefined) yield { key, sizeBytes };
  }
}
