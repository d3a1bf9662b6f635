/**
 * The header of a site: which repository it holds, which log it is, and how chunks were cut. It is
 * written once by `site init`; entry 1 of the log carries its hash. A header of a newer version is
 * refused before anything else is believed.
 */
import { z } from "zod";
import { AppError } from "../../base/error.ts";
import { sha256Hex } from "../../base/hex.ts";
import { hashSchema, randomIdSchema } from "./ids.ts";

/** The name of the header. */
export const HEADER_KEY = "astacus-repository";

/** The version of the format that this code reads and writes. */
export const FORMAT_VERSION = 1;

/** How contents are cut into chunks. */
export const chunkerSchema = z.strictObject({
  rule: z.string().min(1).max(100),
  averageSizeBytes: z.int().min(1024),
});

/** What the header says of encryption: the scheme, and which node keys fit. */
export const encryptionSchema = z.strictObject({
  scheme: z.literal("astacus-seal-1"),
  nodeKeys: hashSchema,
});

/** A header of this version. */
export const headerSchema = z.strictObject({
  format: z.literal("astacus"),
  version: z.literal(FORMAT_VERSION),
  repository: randomIdSchema,
  site: randomIdSchema,
  created: z.string().max(100),
  hash: z.literal("sha256"),
  chunker: chunkerSchema,
  encryption: encryptionSchema.nullable(),
});

/** What a site says of itself. */
export type RepositoryHeader = z.infer<typeof headerSchema>;

/** How contents are cut into chunks. */
export type ChunkerRule = z.infer<typeof chunkerSchema>;

const versionSchema = z.looseObject({ format: z.literal("astacus"), version: z.int() });

/** The bytes of a header, always the same for the same header. */
export function encodeHeader(header: RepositoryHeader): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(headerSchema.parse(header)));
}

/** The hash of a header's bytes, which entry 1 and every checkpoint carry. */
export function headerHash(bytes: Uint8Array): string {
  return hashSchema.parse(sha256Hex(bytes));
}

/** Reads a header; `where` is the site's location, for messages. */
export function decodeHeader(bytes: Uint8Array, where: string): RepositoryHeader {
  const value = parseJson(bytes);
  const version = versionSchema.safeParse(value);
  if (version.success && version.data.version > FORMAT_VERSION) {
    const message = `The repository at ${where} has format version ${version.data.version}`;
    throw new AppError("refused", `${message}; this Astacus reads version ${FORMAT_VERSION}.`, {
      guidance: "Upgrade Astacus on this node.",
      context: { where, version: version.data.version },
    });
  }
  if (version.success && version.data.version === 0) {
    throw new AppError("refused", `The repository at ${where} was made before the first release.`, {
      guidance:
        "Its format was not final, and nothing reads it any more: make a new repository with " +
        "`astacus site init` at another place.",
      context: { where, version: 0 },
    });
  }
  const header = headerSchema.safeParse(value);
  if (header.success) return header.data;
  throw new AppError("damaged", `${HEADER_KEY} at ${where} is not a header of a repository.`, {
    guidance:
      "Check that the site's location is right. If it is, put the header back from a checkpoint, " +
      "which carries a copy.",
    context: { where, key: HEADER_KEY },
    cause: header.error,
  });
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}
