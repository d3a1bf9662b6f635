/**
 * What a product can say about a share that lies in a repository: after a deep verification has
 * proved every chunk, the product's own verifier reads files of the share and holds them against
 * the checksums that the database itself wrote.
 */
import type { Problem } from "../cas/write/volume-source.ts";
import type { Json } from "./product.ts";

/** A regular file of a stored volume. */
export type StoredFile = {
  /** Relative to the volume's root, a byte string. */
  readonly path: string;
  readonly sizeBytes: number;
  /** The bytes from `offset` (0), `length` of them (all that follow); less at the file's end. */
  readonly read: (options: {
    readonly offset?: number;
    readonly length?: number;
  }) => AsyncIterable<Uint8Array>;
};

/** A volume of the share. */
export type StoredVolumeReader = {
  readonly name: string;
  /** Ascending by path; those that begin with `prefix`, all without one. */
  files(prefix?: string): AsyncIterable<StoredFile>;
};

/** One node's share of one backup. */
export type VerifiableShare = {
  readonly node: string;
  readonly volumes: readonly StoredVolumeReader[];
  /** What the product's phases put into the manifest. */
  readonly state: { readonly [key: string]: Json };
  readonly signal: AbortSignal;
};

/** Reads a share and yields what is wrong with it, by path. */
export type ShareVerifier = (share: VerifiableShare) => AsyncIterable<Problem>;
