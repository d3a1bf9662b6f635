/**
 * The wire protocol between nodes: every method, its request and its answer, as strict schemas that
 * both sides apply. The coordinator and the node service meet only here. A long call streams events
 * and ends in one result; it may be repeated at any time with the same key, and then attaches to the
 * work that is already under way.
 */
import { z } from "zod";
import { AppError } from "../base/error.ts";
import { DISTRUSTED_COUNT_MAX } from "../cas/catalog/distrusted-packs.ts";
import { keysSchema, segmentRefSchema } from "../cas/log/entry.ts";
import { treeRootSchema } from "../cas/format/tree.ts";
import { siteUsageSchema } from "./usage.ts";

/** Raised when a request or an answer changes shape; nodes with another number are refused by name. */
export const PROTOCOL_VERSION = 4;

/** A lease is renewed so many times within its time to live. */
export const LEASE_RENEWAL_COUNT = 4;
/** Sites that a lease names. */
const SITE_COUNT_MAX = 100;
/** Ids in one claim request. */
export const CLAIM_BATCH_COUNT_MAX = 4_096;

const json: z.ZodType<JsonValue> = z.lazy(() =>
  z.union([
    z.null(),
    z.boolean(),
    z.number(),
    z.string(),
    z.array(json),
    z.record(z.string(), json),
  ]),
);
/** Plain data on the wire. */
export type JsonValue =
  | null
  | boolean
  | number
  | string
  | JsonValue[]
  | { [key: string]: JsonValue };
export const jsonSchema = json;

const randomId = z.string().regex(/^[0-9a-f]{32}$/);

export const headSchema = z.strictObject({ sequence: z.number().int().min(0), hash: z.string() });

/** Packs of the site that are not relied on, since somebody found them damaged or missing. */
const distrustedSchema = z
  .array(z.strictObject({ id: z.string().length(64), birth: z.number().int().min(0) }))
  .max(DISTRUSTED_COUNT_MAX);

/** Loose: the question is whether we speak one protocol, and it may come from a later version. */
export const helloRequestSchema = z.looseObject({
  protocol: z.number().int(),
  cluster: z.string(),
  version: z.string(),
  /** The site that the operation works on: its id, and how the coordinator calls it. */
  site: z.looseObject({ id: z.string(), called: z.string() }).optional(),
});
export const helloAnswerSchema = z.strictObject({
  node: z.string(),
  zone: z.string(),
  version: z.string(),
  protocol: z.number().int(),
  cluster: z.string(),
  product: z.string(),
  repository: z.string(),
  /** The site that was asked for, else the one that the node reads from. */
  site: z.string(),
  location: z.string(),
  head: headSchema,
  /** All sites that this node has reached. */
  sites: z.array(randomId),
  /** Of the site that was asked for. */
  distrusted: distrustedSchema,
  lease: z.union([z.null(), z.strictObject({ operation: z.string(), kind: z.string() })]),
});
/** What a node says of itself. */
export type HelloAnswer = z.infer<typeof helloAnswerSchema>;

/** What a restore gives to one node; its product is told in every phase. */
export const restoreChoiceSchema = z.strictObject({
  isPartial: z.boolean(),
  paths: z.array(z.string()),
  from: z.string(),
});

export type RestoreChoiceOfNode = z.infer<typeof restoreChoiceSchema>;

/** A mirror that gets the packs of a backup beside its site, under the birth that was read there. */
export const leaseMirrorSchema = z.strictObject({
  site: randomId,
  name: z.string(),
  birth: z.number().int().min(0),
});
export type LeaseMirror = z.infer<typeof leaseMirrorSchema>;

export const leaseRequestSchema = z.strictObject({
  operation: randomId,
  lease: randomId,
  kind: z.enum(["backup", "restore"]),
  /** The id of the site that all of it works on. */
  site: randomId,
  /** Of a backup: who else gets its packs. */
  mirrors: z.array(leaseMirrorSchema).max(SITE_COUNT_MAX),
  /** Of a backup: what any of its nodes distrusts at the site. */
  distrusted: distrustedSchema.exactOptional(),
  restore: restoreChoiceSchema.exactOptional(),
  coordinator: z.string(),
  ttlMs: z.number().int().positive(),
});
export type LeaseRequest = z.infer<typeof leaseRequestSchema>;

/** A node asks the coordinator that holds its lease whether the operation still runs there. */
export const runningRequestSchema = z.strictObject({ operation: randomId });
export const runningAnswerSchema = z.strictObject({ running: z.boolean() });

export const leaseNameSchema = z.strictObject({ operation: randomId, lease: randomId });

export const releaseRequestSchema = z.strictObject({
  operation: randomId,
  lease: randomId,
  /** The backup that was committed with this node's share, if one was. */
  backup: z.union([z.null(), randomId]),
});

/** What a node could not tidy up; nothing of it endangers the backup. */
export const releaseAnswerSchema = z.looseObject({
  problems: z.array(z.string()).optional(),
  /** What passed between the node and its sites under this lease. */
  usage: z.array(siteUsageSchema).optional(),
});

export const phaseRequestSchema = z.strictObject({
  operation: randomId,
  lease: randomId,
  /** Attempt and pass make the key of the work with the name: the same key attaches. */
  attempt: z.number().int().min(0),
  pass: z.number().int().min(0),
  name: z.string().min(1).max(100),
  input: json,
});
export type PhaseRequest = z.infer<typeof phaseRequestSchema>;

/** Of age, for one restore of an encrypted repository: never written down. */
export const identitiesSchema = z.array(z.string().max(4000)).max(100).exactOptional();

export const planRequestSchema = z.strictObject({
  site: randomId,
  backup: randomId,
  from: z.string(),
  paths: z.array(z.string()),
  isPartial: z.boolean(),
  identities: identitiesSchema,
});
/** What a restore would do to one volume of one node. */
export const volumePlanSchema = z.strictObject({
  volume: z.string(),
  target: z.string(),
  files: z.number(),
  bytes: z.number(),
  filesKept: z.number(),
  bytesKept: z.number(),
  filesToWrite: z.number(),
  bytesToWrite: z.number(),
  bytesToFetch: z.number(),
  directories: z.number(),
  /** Left out for none, and by earlier builds. */
  links: z.number().exactOptional(),
  extraFiles: z.number(),
  extraSample: z.array(z.string()),
  extraRemoved: z.boolean(),
  refusals: z.array(z.string()),
});
export type VolumePlan = z.infer<typeof volumePlanSchema>;
export const planAnswerSchema = z.strictObject({ volumes: z.array(volumePlanSchema) });

/** An object that a node found missing or damaged at the site of this id. */
export const faultyObjectSchema = z.strictObject({
  site: randomId,
  kind: z.enum(["pack", "manifest"]),
  id: z.string().length(64),
});

/** What a restore did on one node. */
export const placedSchema = z.strictObject({
  filesWritten: z.number(),
  bytesWritten: z.number(),
  filesKept: z.number(),
  filesRemoved: z.number(),
  ownersNotSet: z.number(),
  fetchedBytes: z.number(),
});
export type Placed = z.infer<typeof placedSchema>;
/** With what sites did not give as they should have. */
export const placeAnswerSchema = placedSchema.extend({ faults: z.array(faultyObjectSchema) });

/** Input of the core phase `place`. */
export const placeInputSchema = z.strictObject({
  backup: randomId,
  from: z.string(),
  paths: z.array(z.string()),
  product: json,
  identities: identitiesSchema,
});
/** Input of the core phase `store`. */
export const storeInputSchema = z.strictObject({ lookUpAll: z.boolean(), product: json });

const hexIds = z.array(z.string().length(64)).max(CLAIM_BATCH_COUNT_MAX);
export const claimRequestSchema = z.strictObject({
  operation: randomId,
  node: z.string(),
  ids: hexIds,
});
export const claimAnswerSchema = z.strictObject({ ours: z.array(z.boolean()) });
const claimPlace = z.strictObject({
  id: z.string().length(64),
  pack: z.string().length(64),
  birth: z.number().int().min(0),
  frame: z.number().int().min(0),
  frameCount: z.number().int().min(1),
});
export const settleRequestSchema = z.strictObject({
  operation: randomId,
  node: z.string(),
  places: z.array(claimPlace).max(CLAIM_BATCH_COUNT_MAX),
});
export const settleAnswerSchema = z.strictObject({});
export const resolveRequestSchema = z.strictObject({
  operation: randomId,
  node: z.string(),
  ids: hexIds,
});
export const resolveAnswerSchema = z.strictObject({
  places: z.array(z.union([claimPlace.omit({ id: true }), z.literal("yours"), z.literal("wait")])),
});

/** One reason why a backup is not whole. */
export const problemSchema = z.strictObject({
  path: z.string(),
  kind: z.enum(["unreadable", "vanished", "changed", "unsupported", "damaged"]),
  message: z.string(),
});

export const nodeTotalsSchema = z.strictObject({
  files: z.number(),
  directories: z.number(),
  bytes: z.number(),
  readBytes: z.number(),
  newBytes: z.number(),
  storedBytes: z.number(),
  chunks: z.number(),
  newChunks: z.number(),
  unchangedFiles: z.number(),
});

/** What a mirror was sent of a node's packs, beside the primary. */
export const mirrorSentSchema = z.strictObject({
  name: z.string(),
  packs: z.number(),
  bytes: z.number(),
  /** Why it was left out. */
  failed: z.string().exactOptional(),
});

/** What a node stored: the answer of the last core phase of a backup. */
export const nodeStoredSchema = z.strictObject({
  volumes: z.array(
    z.strictObject({
      name: z.string(),
      root: z.string(),
      listing: treeRootSchema,
      files: z.number(),
      directories: z.number(),
      bytes: z.number(),
    }),
  ),
  list: treeRootSchema,
  listPacks: z.array(z.string()),
  segments: z.array(segmentRefSchema),
  totals: nodeTotalsSchema,
  problems: z.array(problemSchema),
  problemCount: z.number(),
  plannedAt: z.number(),
  mirrors: z.array(mirrorSentSchema),
  keys: keysSchema,
});
export type NodeStoredAnswer = z.infer<typeof nodeStoredSchema>;

/** Events of a running phase. */
export const phaseEventSchema = z.strictObject({
  files: z.number().optional(),
  bytes: z.number().optional(),
  bytesTotal: z.number().optional(),
  filesTotal: z.number().optional(),
  readBytes: z.number().optional(),
  newBytes: z.number().optional(),
  storedBytes: z.number().optional(),
  message: z.string().optional(),
});
export type PhaseEvent = z.infer<typeof phaseEventSchema>;

/** A request that passed its schema; one that does not comes from another version. */
export function parseRequest<T>(schema: z.ZodType<T>, method: string, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new AppError("refused", `This node was asked ${method} in a form that it does not know.`, {
    guidance: "The nodes run different versions: bring all to the same one.",
    context: { method, problem: parsed.error.issues[0]?.message ?? "" },
  });
}
