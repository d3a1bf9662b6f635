/**
 * Holds the Adler-32 of each file that a backup has read against the digest file of its fileset. It
 * is fed with files in any order; those of a fileset come near each other, and unchanged ones never
 * come. Memory: the digests of the filesets that were met last.
 */
import type { Problem } from "../../cas/write/volume-source.ts";
import { joinPath, parentPath } from "../../base/path.ts";
import { adler32 } from "./adler32.ts";
import { filesetFileName, filesetPartKey, parseFilesetName } from "./fileset-names.ts";
import type { FilesetName } from "./fileset-names.ts";
import { parseCheckpoint, parseDataDigests, parseIndexDigests } from "./fileset.ts";
import type { FilesetDigests } from "./fileset.ts";

/** What kind of filesets: the digest files differ. */
export type FilesetKind = "data" | "index";

/** What is known of one fileset; `gone` if its small files cannot be read any more. */
type Known =
  | { readonly state: "sound"; readonly digests: FilesetDigests; readonly digestSum: number }
  | { readonly state: "damaged" }
  | { readonly state: "gone" };

const FILESETS_REMEMBERED_MAX = 256;
const REPORTED_MAX = 10_000;

/** Judges the filesets of one volume. */
export class FilesetJudge {
  readonly #kind: FilesetKind;
  readonly #read: (path: string) => Uint8Array | undefined;
  readonly #known = new Map<string, Known>();
  readonly #reported = new Set<string>();
  #judgedCount = 0;
  #unjudgedCount = 0;

  /** @param read - A small file of the volume by its path; undefined if it is gone. */
  constructor(kind: FilesetKind, read: (path: string) => Uint8Array | undefined) {
    this.#kind = kind;
    this.#read = read;
  }

  /** Files that matched or did not. */
  get judgedCount(): number {
    return this.#judgedCount;
  }

  /** Files of filesets that nobody can judge: they have no checkpoint, or are gone meanwhile. */
  get unjudgedCount(): number {
    return this.#unjudgedCount;
  }

  /** What is wrong with a file that was read; files that are of no fileset have no digest. */
  judge(path: string, checksum: number): Problem[] {
    const folder = parentPath(path);
    const name = parseFilesetName(path.slice(path.lastIndexOf("/") + 1));
    if (name === undefined) return [];
    const digestPath = pathOf(folder, name, "digest");
    const known = this.#knownOf(folder, name);
    if (known.state === "gone") {
      this.#unjudgedCount += 1;
      return [];
    }
    this.#judgedCount += 1;
    if (known.state === "damaged") return this.#report(digestPath, DIGEST_DAMAGED);
    const expected = name.part === "digest" ? known.digestSum : expectedOf(name, known.digests);
    if (expected === undefined || expected === checksum) return [];
    return this.#report(path, contradiction(checksum, expected));
  }

  #knownOf(folder: string, name: FilesetName): Known {
    const key = pathOf(folder, name, "");
    const found = this.#known.get(key) ?? this.#load(folder, name);
    this.#known.delete(key);
    this.#known.set(key, found);
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= FILESETS_REMEMBERED_MAX) break;
      this.#known.delete(oldest);
    }
    return found;
  }

  #load(folder: string, name: FilesetName): Known {
    const digest = this.#read(pathOf(folder, name, "digest"));
    const checkpoint = this.#read(pathOf(folder, name, "checkpoint"));
    const digestSum = checkpoint === undefined ? undefined : parseCheckpoint(checkpoint);
    if (digest === undefined || digestSum === undefined) return { state: "gone" };
    const digests = adler32(digest) === digestSum ? parseDigests(this.#kind, digest) : undefined;
    return digests === undefined ? { state: "damaged" } : { state: "sound", digests, digestSum };
  }

  #report(path: string, message: string): Problem[] {
    if (this.#reported.has(path)) return [];
    if (this.#reported.size >= REPORTED_MAX) this.#reported.clear();
    this.#reported.add(path);
    return [{ path, kind: "damaged", message }];
  }
}

const DIGEST_DAMAGED =
  "The digest file contradicts its checkpoint: M3 ignores this fileset and repairs the block from replicas.";

/** The sum that a file should have; undefined where none is written (checkpoint, leftovers). */
function expectedOf(name: FilesetName, digests: FilesetDigests): number | undefined {
  return digests.get(filesetPartKey(name));
}

/** What a digest file of a kind says; undefined if it is none. */
export function parseDigests(kind: FilesetKind, bytes: Uint8Array): FilesetDigests | undefined {
  return kind === "data" ? parseDataDigests(bytes) : parseIndexDigests(bytes);
}

/** For people: what was found and what M3 wrote down. */
export function contradiction(found: number, expected: number): string {
  return (
    `Its Adler-32 is ${hex(found)}, and M3 wrote down ${hex(expected)}: ` +
    "the file is damaged on the node's disk."
  );
}

function hex(checksum: number): string {
  return checksum.toString(16).padStart(8, "0");
}

function pathOf(folder: string, name: FilesetName, key: string): string {
  return joinPath(folder, filesetFileName(name, key));
}
