/**
 * Manifests: what one backup is, for people and for restores (docs/format.md section 8). A manifest
 * names trees, never packs, and is the same on every site; its id is the hash of its stored bytes.
 */
import { FORMAT_VERSION } from "./header.ts";
import { z } from "zod";
import { AppError } from "../../base/error.ts";
import { sha256Hex } from "../../base/hex.ts";
import type { Site, SiteCall } from "../../sites/site.ts";
import { OBJECT_SIZE_BYTES_MAX } from "../../sites/site.ts";
import { damagedError } from "./bytes.ts";
import { manifestKey, randomIdSchema } from "./ids.ts";
import type { BackupRecord } from "../log/state.ts";
import { PLAIN_SEALER, sessionOfManifest } from "./seal.ts";
import type { Sealer, SessionKey } from "./seal.ts";
import { treeRootSchema } from "./tree.ts";
import { compressZstd, decompressAtMost } from "./zstd.ts";

/** Problems that a manifest names; all of them are counted. */
export const MANIFEST_PROBLEM_COUNT_MAX = 1000;

const COMPRESSION_LEVEL = 3;
const NODE_COUNT_MAX = 1000;
const VOLUME_COUNT_MAX = 10_000;

const countSchema = z.int().min(0);
const nameSchema = z.string().min(1).max(1000);
const pathSchema = z.string().max(100_000);

const totalsSchema = z.strictObject({
  files: countSchema,
  bytes: countSchema,
  newBytes: countSchema,
  storedBytes: countSchema,
});

const volumeSchema = z.strictObject({
  name: nameSchema,
  root: pathSchema,
  listing: treeRootSchema,
  files: countSchema,
  directories: countSchema,
  bytes: countSchema,
});

const nodeSchema = z.strictObject({
  name: nameSchema,
  zone: z.string().max(1000),
  version: nameSchema,
  volumes: z.array(volumeSchema).max(VOLUME_COUNT_MAX),
  list: treeRootSchema,
  totals: totalsSchema,
});

/** A problem of a node. The path is text, with U+FFFD where its bytes are not UTF-8. */
export const manifestProblemSchema = z.strictObject({
  node: nameSchema,
  path: pathSchema,
  /** `missing`: a node, or what the database says should be there. */
  kind: z.enum(["unreadable", "vanished", "changed", "unsupported", "damaged", "missing"]),
  message: z.string().max(10_000),
});

/** A whole manifest. */
export const manifestSchema = z.strictObject({
  v: z.literal(FORMAT_VERSION),
  backup: randomIdSchema,
  name: nameSchema,
  cluster: nameSchema,
  product: nameSchema,
  started: nameSchema,
  ended: nameSchema,
  complete: z.boolean(),
  /** Complete, with fewer copies of the data than there should be. */
  degraded: z.literal(true).exactOptional(),
  state: z.record(z.string(), z.json()),
  nodes: z.array(nodeSchema).max(NODE_COUNT_MAX),
  problems: z.array(manifestProblemSchema).max(MANIFEST_PROBLEM_COUNT_MAX),
  problemCount: countSchema,
  totals: totalsSchema,
});

/** What one backup is. */
export type Manifest = z.infer<typeof manifestSchema>;

/** One node of a manifest. */
export type ManifestNode = Manifest["nodes"][number];

/** One volume of a node. */
export type ManifestVolume = ManifestNode["volumes"][number];

/** What opens the manifests of a repository; see `FrameOpener`. */
export type ManifestOpener = {
  readonly sealer: Sealer;
  sessionKey(id: string, options?: SiteCall): Promise<SessionKey>;
};

/** The object of a manifest, and its id; an encrypted repository seals it under a session key. */
export function encodeManifest(
  manifest: Manifest,
  sealing?: { readonly sealer: Sealer; readonly session: SessionKey },
): {
  readonly id: string;
  readonly bytes: Uint8Array;
} {
  const text = JSON.stringify(manifestSchema.parse(manifest));
  const packed = new Uint8Array(compressZstd(new TextEncoder().encode(text), COMPRESSION_LEVEL));
  const { sealer, session } = sealing ?? { sealer: PLAIN_SEALER, session: undefined };
  const bytes = sealer.sealObject("manifest", packed, session);
  if (bytes.length > OBJECT_SIZE_BYTES_MAX) {
    throw new AppError("refused", `The manifest of ${manifest.name} is too large to be stored.`, {
      guidance: "What the product keeps in the manifest must be smaller.",
      context: { backup: manifest.backup, sizeBytes: bytes.length },
    });
  }
  return { id: sha256Hex(bytes), bytes };
}

/** A manifest from its object, which must have the hash that its name says. */
export function decodeManifest(
  stored: Uint8Array,
  id: string,
  sealing?: { readonly sealer: Sealer; readonly session: SessionKey },
): Manifest {
  const what = `Manifest ${id}`;
  if (sha256Hex(stored) !== id) throw damagedError(what, "does not match its name", { id });
  const { sealer, session } = sealing ?? { sealer: PLAIN_SEALER, session: undefined };
  const bytes = sealer.openObject("manifest", stored, what, session);
  const plain = decompressAtMost(bytes, OBJECT_SIZE_BYTES_MAX, what);
  const result = manifestSchema.safeParse(parseJson(plain));
  if (result.success) return result.data;
  const why = z.prettifyError(result.error).slice(0, 500);
  throw damagedError(what, `is not a manifest of version ${FORMAT_VERSION}: ${why}`, { id });
}

/**
 * The manifest of a backup; AppError `damaged` if its object is missing or not what it should be. In
 * an encrypted repository the opener must have an identity that fits.
 *
 * @example
 * const manifest = await readManifest(site, backup, signal, source.opener);
 */
export async function readManifest(
  site: Pick<Site, "get">,
  record: Pick<BackupRecord, "backup" | "manifest">,
  signal?: AbortSignal,
  opener?: ManifestOpener,
): Promise<Manifest> {
  const { id, birth } = record.manifest;
  const key = manifestKey(id, birth);
  const call: SiteCall = signal === undefined ? {} : { signal };
  const bytes = await site.get(key, call);
  if (bytes === undefined) throw damagedError(key, "is missing", { key });
  const sealing = await sealingOf(bytes, { key, opener, call });
  const manifest = decodeManifest(bytes, id, sealing);
  if (manifest.backup !== record.backup) {
    throw damagedError(key, "belongs to another backup", { key, backup: manifest.backup });
  }
  return manifest;
}

async function sealingOf(
  bytes: Uint8Array,
  from: {
    readonly key: string;
    readonly opener: ManifestOpener | undefined;
    readonly call: SiteCall;
  },
): Promise<{ readonly sealer: Sealer; readonly session: SessionKey } | undefined> {
  const { key, opener, call } = from;
  if (opener === undefined || opener.sealer.isPlain) return undefined;
  const session = await opener.sessionKey(sessionOfManifest(bytes, key), call);
  return { sealer: opener.sealer, session };
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}
