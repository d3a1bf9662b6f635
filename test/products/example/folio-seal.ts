/**
 * Folio's own checksums: `000012.seal`, written last, is the Adler-32 of `000012.docs`. A backup
 * holds what it reads against it, and a deep verification what is stored.
 */
import type { Problem } from "../../../src/cas/write/volume-source.ts";
import { Adler32 } from "../../../src/products/m3/adler32.ts";
import type { ShareVerifier, StoredFile } from "../../../src/products/share-verifier.ts";

const DOCS = ".docs";
const SEAL = ".seal";

/** True for what says: all that I speak for is there. */
export function isSeal(path: string): boolean {
  return path.endsWith(SEAL);
}

/** True for the documents of a segment. */
export function isDocs(path: string): boolean {
  return path.endsWith(DOCS);
}

/** The seal of a segment's documents. */
export function sealOf(docs: string): string {
  return docs.slice(0, -DOCS.length) + SEAL;
}

/** The documents that a seal speaks for. */
export function docsOf(seal: string): string {
  return seal.slice(0, -SEAL.length) + DOCS;
}

/** What is wrong with the documents at `path`, by their Adler-32 and the text of their seal. */
export function judgeDocs(path: string, sum: unknown, seal: string): Problem | undefined {
  if (String(sum) === seal) return undefined;
  const message = `Its Adler-32 is ${String(sum)}, its seal says ${JSON.stringify(seal.slice(0, 20))}.`;
  return { path, kind: "damaged", message };
}

/** Holds each segment of a stored share against its seal, which sorts after it. */
export const verifyFolioShare: ShareVerifier = async function* verifyFolioShare({ volumes }) {
  for (const volume of volumes.filter(({ name }) => name === "segments")) {
    let docs: { readonly path: string; readonly sum: number } | undefined;
    for await (const file of volume.files()) {
      if (isDocs(file.path)) docs = { path: file.path, sum: await sumOf(file) };
      if (!isSeal(file.path)) continue;
      const path = docsOf(file.path);
      const problem =
        docs?.path === path
          ? judgeDocs(path, docs.sum, await textOf(file))
          : { path, kind: "vanished" as const, message: "Its seal is there, it is not." };
      if (problem !== undefined) yield { ...problem, path: `segments/${path}` };
    }
  }
};

async function sumOf(file: StoredFile): Promise<number> {
  const sum = new Adler32();
  for await (const bytes of file.read({})) sum.update(bytes);
  return sum.value;
}

async function textOf(file: StoredFile): Promise<string> {
  return new TextDecoder().decode(Buffer.concat(await Array.fromAsync(file.read({}))));
}
