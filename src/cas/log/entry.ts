/**
 * Log entries as values: the full table of kinds (docs/format.md section 3) with a strict schema for
 * each body, and the envelope around them. What is written was checked by the schema that reads it;
 * a kind that this code does not know decodes to `unknown` and is left to the state machine.
 */
import { z } from "zod";
import { AppError } from "../../base/error.ts";
import { sha256Hex } from "../../base/hex.ts";
import { FORMAT_VERSION } from "../format/header.ts";
import { hashSchema, logKey, randomIdSchema, SEQUENCE_MAX } from "../format/ids.ts";
import { PLAIN_SEALER } from "../format/seal.ts";
import type { Sealer } from "../format/seal.ts";
import { treeRootSchema } from "../format/tree.ts";
import { recipientSchema } from "../keys/age.ts";

export { logKey } from "../format/ids.ts";

/** No entry retires more packs than this at once. */
export const RETIRE_PACK_COUNT_MAX = 20_000;

const NAME_COUNT_MAX = 200_000;
const TEXT_LENGTH_MAX = 10_000;
const SITE_COUNT_MAX = 100;

const sequenceSchema = z.int().min(1).max(SEQUENCE_MAX);
const birthSchema = z.int().min(0).max(SEQUENCE_MAX);
const countSchema = z.int().min(0);
const nameSchema = z.string().min(1).max(1000);
const textSchema = z.string().max(TEXT_LENGTH_MAX);
const packsSchema = z.array(hashSchema).max(NAME_COUNT_MAX);
const backupsSchema = z.array(randomIdSchema).max(NAME_COUNT_MAX);

/** A segment as entries and checkpoints name it. */
export const segmentRefSchema = z.strictObject({
  id: hashSchema,
  birth: birthSchema,
  sizeBytes: countSchema,
  packs: countSchema,
  chunks: countSchema,
});

/** A manifest as entries name it. */
export const manifestRefSchema = z.strictObject({
  id: hashSchema,
  birth: birthSchema,
  sizeBytes: countSchema,
});

/** What a backup amounts to. */
export const totalsSchema = z.strictObject({
  files: countSchema,
  bytes: countSchema,
  newBytes: countSchema,
  storedBytes: countSchema,
});

/** Which `forget`, in the log of which site. */
export const forgetRefSchema = z.strictObject({ site: randomIdSchema, sequence: sequenceSchema });

/** Where a forget applies: to this site, or to all that hold the backup. */
export const scopeSchema = z.enum(["site", "all"]);

/** What a site is to the others: where operations start, a copy, or one that is only read. */
export const siteRoleSchema = z.enum(["primary", "mirror", "archive"]);

const ruleSchema = countSchema.exactOptional();

/** What a site keeps; the fields are those of RetentionPolicy (clean/retention.ts). */
const retentionSchema = z.strictObject({
  minimum: ruleSchema,
  maximum: ruleSchema,
  keepDays: ruleSchema,
  keepLast: ruleSchema,
  keepWithinMs: ruleSchema,
  hourly: ruleSchema,
  daily: ruleSchema,
  weekly: ruleSchema,
  monthly: ruleSchema,
  yearly: ruleSchema,
});

/** The body of a `role`: which sites there are and what each of them is. */
export const roleBodySchema = z.strictObject({
  epoch: sequenceSchema,
  primary: randomIdSchema,
  sites: z
    .array(
      z.strictObject({
        site: randomIdSchema,
        name: nameSchema,
        location: nameSchema,
        role: siteRoleSchema,
        retention: retentionSchema.exactOptional(),
      }),
    )
    .max(SITE_COUNT_MAX),
  reason: textSchema,
});

/** The body of a `closed`: the site that takes the place of this one. */
export const closedBodySchema = z.strictObject({ successor: randomIdSchema, reason: textSchema });

/** An object that lies under a new birth. */
const repairedSchema = z.strictObject({
  kind: z.enum(["pack", "index", "manifest"]),
  id: hashSchema,
  birth: birthSchema,
});

const segmentsSchema = z.array(segmentRefSchema).max(NAME_COUNT_MAX);

/** For whom a session key is wrapped. */
export const recipientsSchema = z.array(recipientSchema).min(1).max(100);

const keySchema = z.strictObject({ id: hashSchema, birth: birthSchema, hash: hashSchema });

/** Key objects that an entry brings; left out in plain repositories, and where there are none. */
export const keysSchema = z
  .array(keySchema.extend({ recipients: recipientsSchema }))
  .min(1)
  .max(NAME_COUNT_MAX)
  .exactOptional();

/** The body of a `backup`. */
export const backupBodySchema = z.strictObject({
  backup: randomIdSchema,
  name: nameSchema,
  cluster: nameSchema,
  product: nameSchema,
  started: nameSchema,
  ended: nameSchema,
  complete: z.boolean(),
  /** Complete, with fewer copies of the data than there should be. */
  degraded: z.literal(true).exactOptional(),
  problems: countSchema,
  plannedAt: birthSchema,
  manifest: manifestRefSchema,
  segments: segmentsSchema,
  revived: packsSchema,
  lists: z.array(z.strictObject({ node: nameSchema, root: treeRootSchema })).max(NAME_COUNT_MAX),
  listPacks: packsSchema,
  totals: totalsSchema,
  /** What a backup that is listed again stands above. */
  overrides: forgetRefSchema.optional(),
  keys: keysSchema,
});

const BODY_SCHEMAS = {
  note: z.strictObject({ text: textSchema, header: hashSchema.optional() }),
  backup: backupBodySchema,
  keep: z.strictObject({ segments: segmentsSchema, keys: keysSchema }),
  forget: z.strictObject({
    backups: backupsSchema,
    reason: textSchema,
    scope: scopeSchema,
    /** The entry that this one carries to another site; left out by that entry itself. */
    origin: forgetRefSchema.exactOptional(),
  }),
  undo: z.strictObject({ backup: randomIdSchema, forget: sequenceSchema, revived: packsSchema }),
  retire: z.strictObject({ packs: z.array(hashSchema).max(RETIRE_PACK_COUNT_MAX) }),
  delete: z.strictObject({ packs: packsSchema, backups: backupsSchema, floor: birthSchema }),
  pin: z.strictObject({ pin: nameSchema, backup: randomIdSchema, reason: textSchema }),
  drop: z.strictObject({ keeps: backupsSchema, pins: z.array(nameSchema).max(NAME_COUNT_MAX) }),
  merge: z.strictObject({
    inputs: z.array(hashSchema).max(NAME_COUNT_MAX),
    output: segmentRefSchema.nullable(),
    dropped: packsSchema,
  }),
  repack: z.strictObject({ from: packsSchema, to: packsSchema, segments: segmentsSchema }),
  role: roleBodySchema,
  closed: closedBodySchema,
  rekey: z.strictObject({
    recipients: recipientsSchema,
    keys: z.array(keySchema).max(NAME_COUNT_MAX),
  }),
  repair: z.strictObject({ objects: z.array(repairedSchema).min(1).max(NAME_COUNT_MAX) }),
} as const;

/** The kinds of entry that this code knows. */
export type EntryKind = keyof typeof BODY_SCHEMAS;

/** The bodies by kind. */
export type EntryBodies = {
  readonly [Kind in EntryKind]: z.infer<(typeof BODY_SCHEMAS)[Kind]>;
};

/** A `forget` in the log of a site, as it is named everywhere. */
export type ForgetRef = z.infer<typeof forgetRefSchema>;

/** The body of a `backup` entry. */
export type BackupBody = EntryBodies["backup"];

/** All kinds, in the order of docs/format.md. */
export const ENTRY_KINDS = Object.keys(BODY_SCHEMAS).filter(isEntryKind);

const envelopeSchema = z.strictObject({
  v: z.literal(FORMAT_VERSION),
  sequence: sequenceSchema,
  previous: hashSchema,
  id: randomIdSchema,
  operation: randomIdSchema,
  time: nameSchema,
  writer: z.strictObject({ node: nameSchema, version: nameSchema }),
  kind: z.string().regex(/^[a-z][a-z-]{0,31}$/),
  critical: z.boolean(),
  reader: countSchema,
  committer: countSchema,
  checkpoint: z.strictObject({ sequence: sequenceSchema, hash: hashSchema }).nullable(),
  births: z.tuple([birthSchema, birthSchema]).nullable(),
  body: z.unknown(),
});

const placeSchema = z.looseObject({
  v: z.literal(FORMAT_VERSION),
  sequence: sequenceSchema,
  previous: hashSchema,
});

/** An entry of an encrypted repository, as everybody sees it. */
const sealedEntrySchema = z.strictObject({
  v: z.literal(FORMAT_VERSION),
  sequence: sequenceSchema,
  previous: hashSchema,
  sealed: z.base64(),
});

/** What all entries have around their bodies. */
export type EntryEnvelope = Omit<z.infer<typeof envelopeSchema>, "kind" | "body">;

/** An entry of one kind. */
export type EntryOf<Kind extends EntryKind> = EntryEnvelope & {
  readonly kind: Kind;
  readonly body: EntryBodies[Kind];
};

/** An entry of a kind that this code does not know; `name` is the kind as written. */
export type UnknownEntry = EntryEnvelope & {
  readonly kind: "unknown";
  readonly name: string;
  readonly body: unknown;
};

/** An entry of a known kind. */
export type KnownEntry = { [Kind in EntryKind]: EntryOf<Kind> }[EntryKind];

/** Any entry of the log. */
export type Entry = KnownEntry | UnknownEntry;

/** What a committer decides: kind and body; `births` only if it knows better than the body tells. */
export type EntryDraft = {
  [Kind in EntryKind]: {
    readonly kind: Kind;
    readonly body: EntryBodies[Kind];
    readonly births?: readonly [lowest: number, highest: number] | null;
  };
}[EntryKind];

/**
 * The bytes of an entry, checked by the schema that will read them.
 *
 * @example
 * await site.put(logKey(entry.sequence), encodeEntry(entry));
 */
export function encodeEntry(entry: KnownEntry, sealer: Sealer = PLAIN_SEALER): Uint8Array {
  const { kind, body, ...envelope } = entry;
  const checked = envelopeSchema.parse({ ...envelope, kind, body: BODY_SCHEMAS[kind].parse(body) });
  const text = JSON.stringify(checked);
  if (sealer.isPlain) return new TextEncoder().encode(`${text}\n`);
  const sealed = sealer.sealObject("log", new TextEncoder().encode(text));
  const { v, sequence, previous } = checked;
  const outer = { v, sequence, previous, sealed: Buffer.from(sealed).toString("base64") };
  return new TextEncoder().encode(`${JSON.stringify(sealedEntrySchema.parse(outer))}\n`);
}

/** The hash that an entry says the one before it has; an encrypted one shows it to everybody. */
export function previousOf(bytes: Uint8Array, sequence: number): string {
  const value = parseJson(bytes, sequence);
  const sealed = sealedEntrySchema.safeParse(value);
  if (!sealed.success) return decodeEntry(bytes, sequence).previous;
  if (sealed.data.sequence === sequence) return sealed.data.previous;
  throw damagedEntry(sequence, `it says that it is entry ${sealed.data.sequence}`);
}

/** The entry in these bytes, which were found at `sequence`. */
export function decodeEntry(
  bytes: Uint8Array,
  sequence: number,
  sealer: Sealer = PLAIN_SEALER,
): Entry {
  const outer = parseJson(bytes, sequence);
  const value = sealer.isPlain ? outer : openEntry(outer, sequence, sealer);
  const { kind, body, ...envelope } = check(envelopeSchema, value, sequence);
  if (envelope.sequence !== sequence) {
    throw damagedEntry(sequence, `it says that it is entry ${envelope.sequence}`);
  }
  if (!isEntryKind(kind)) return { ...envelope, kind: "unknown", name: kind, body };
  return knownEntry(envelope, kind, check<unknown>(BODY_SCHEMAS[kind], body, sequence));
}

/** The hash that the next entry carries as `previous`. */
export function entryHash(bytes: Uint8Array): string {
  return sha256Hex(bytes);
}

/** True for a kind of the table. */
export function isEntryKind(kind: string): kind is EntryKind {
  return Object.hasOwn(BODY_SCHEMAS, kind);
}

/** The JSON of an entry out of the one that seals it; both say where it stands. */
function openEntry(value: unknown, sequence: number, sealer: Sealer): unknown {
  const outer = check(sealedEntrySchema, value, sequence);
  const stored = new Uint8Array(Buffer.from(outer.sealed, "base64"));
  const inner = parseJson(sealer.openObject("log", stored, logKey(sequence)), sequence);
  const place = placeSchema.safeParse(inner);
  const isSame =
    place.success &&
    place.data.v === outer.v &&
    place.data.sequence === outer.sequence &&
    place.data.previous === outer.previous;
  if (isSame) return inner;
  throw damagedEntry(sequence, "what is sealed in it belongs to another place of the log");
}

// The schema of the kind has passed the body, which the type system cannot follow.
function knownEntry(envelope: EntryEnvelope, kind: EntryKind, body: unknown): KnownEntry {
  return { ...envelope, kind, body } as KnownEntry;
}

function parseJson(bytes: Uint8Array, sequence: number): unknown {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (thrown) {
    throw damagedEntry(sequence, "it is not JSON", thrown);
  }
  const version = z.looseObject({ v: z.int() }).safeParse(value);
  if (version.success && version.data.v > FORMAT_VERSION) {
    throw new AppError("refused", `${logKey(sequence)} was written by a newer Astacus.`, {
      guidance: "Upgrade Astacus on this node.",
      context: { key: logKey(sequence), version: version.data.v },
    });
  }
  return value;
}

function check<Value>(schema: z.ZodType<Value>, value: unknown, sequence: number): Value {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw damagedEntry(sequence, z.prettifyError(result.error).slice(0, 500), result.error);
}

function damagedEntry(sequence: number, why: string, cause?: unknown): AppError {
  return new AppError("damaged", `${logKey(sequence)} is not a log entry: ${why}.`, {
    guidance: "Run `astacus site check`; another site or a node's catalog may hold the entry.",
    context: { key: logKey(sequence), sequence },
    cause,
  });
}
