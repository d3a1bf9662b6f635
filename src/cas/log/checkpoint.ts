/**
 * Checkpoints: the whole state at an entry as one object, so that a node that has seen nothing need
 * not read the log from its beginning. Encoding is canonical: equal states of one log give equal
 * bytes, whoever replayed them and from where. A checkpoint counts once an entry names its hash.
 */
import { FORMAT_VERSION } from "../format/header.ts";
import { z } from "zod";
import { AppError } from "../../base/error.ts";
import { sha256Hex } from "../../base/hex.ts";
import {
  backupBodySchema,
  closedBodySchema,
  forgetRefSchema,
  recipientsSchema,
  roleBodySchema,
  scopeSchema,
  segmentRefSchema,
} from "./entry.ts";
import { headerSchema } from "../format/header.ts";
import { checkpointKey, hashSchema, randomIdSchema } from "../format/ids.ts";
import { PLAIN_SEALER } from "../format/seal.ts";
import type { Sealer } from "../format/seal.ts";
import type { CheckpointRef, Move, RepositoryState } from "./state.ts";
import { compressZstd, decompressAtMost } from "../format/zstd.ts";

const COMPRESSION_LEVEL = 9;
// A state is some hundred bytes for each backup and retired pack; this is far beyond any.
const RAW_SIZE_BYTES_MAX = 1024 * 1024 * 1024;

const sequence = z.int().min(0);
const time = z.string();

const stateSchema = z.strictObject({
  header: headerSchema,
  headerHash: hashSchema,
  repository: randomIdSchema,
  site: randomIdSchema,
  floor: sequence,
  backups: z.array(
    backupBodySchema.extend({
      sequence,
      time,
      operation: randomIdSchema,
      forgotten: z
        .strictObject({
          sequence,
          time,
          reason: z.string(),
          scope: scopeSchema,
          origin: forgetRefSchema,
        })
        .optional(),
      undone: z.array(forgetRefSchema).exactOptional(),
    }),
  ),
  everIds: z.array(randomIdSchema),
  buried: z.array(forgetRefSchema.extend({ backup: randomIdSchema })),
  pins: z.array(
    z.strictObject({
      pin: z.string(),
      backup: randomIdSchema,
      reason: z.string(),
      sequence,
      time,
    }),
  ),
  keeps: z.array(
    z.strictObject({
      operation: randomIdSchema,
      segments: z.array(hashSchema),
      sequence,
      time,
      node: z.string(),
    }),
  ),
  segments: z.array(segmentRefSchema.extend({ sequence })),
  retired: z.array(z.strictObject({ pack: hashSchema, sequence, time })),
  deleted: z.array(z.strictObject({ pack: hashSchema, sequence, floor: sequence })),
  moves: z.array(
    z.strictObject({
      sequence,
      from: z.array(hashSchema),
      to: z.array(hashSchema),
      backups: z.array(randomIdSchema),
    }),
  ),
  births: z.array(z.strictObject({ pack: hashSchema, birth: sequence })),
  checkpoint: z.strictObject({ sequence, hash: hashSchema }).nullable(),
  lastCleanup: z.strictObject({ sequence, operation: randomIdSchema }).nullable(),
  // Left out where nobody has spoken of them, as in checkpoints that are older than these kinds.
  roles: roleBodySchema.extend({ sequence }).exactOptional(),
  closed: closedBodySchema.extend({ sequence, time }).exactOptional(),
  /** Of encrypted repositories: `to` is the number of the recipients in their list. */
  keys: z
    .array(z.strictObject({ id: hashSchema, birth: sequence, hash: hashSchema, to: sequence }))
    .exactOptional(),
  recipients: z.array(recipientsSchema).exactOptional(),
});

const checkpointSchema = z.strictObject({
  v: z.literal(FORMAT_VERSION),
  sequence,
  entryHash: hashSchema,
  state: stateSchema,
});

type StateJson = z.infer<typeof stateSchema>;

/** A checkpoint of this state. A blocked state has none: what blocks it is not in it. */
export function encodeCheckpoint(
  state: RepositoryState,
  sealer: Sealer = PLAIN_SEALER,
): {
  readonly key: string;
  readonly bytes: Uint8Array;
  readonly hash: string;
} {
  const json = JSON.stringify({
    v: FORMAT_VERSION,
    sequence: state.sequence,
    entryHash: state.entryHash,
    state: stateToJson(state),
  });
  const packed = compressZstd(new TextEncoder().encode(json), COMPRESSION_LEVEL);
  const bytes = sealer.sealObject("checkpoint", new Uint8Array(packed));
  const hash = sha256Hex(bytes);
  return { key: checkpointKey(state.sequence, hash), bytes, hash };
}

/** The state in a checkpoint, if it is the one that was named. */
export function decodeCheckpoint(
  stored: Uint8Array,
  expected: CheckpointRef,
  sealer: Sealer = PLAIN_SEALER,
): RepositoryState {
  const key = checkpointKey(expected.sequence, expected.hash);
  if (sha256Hex(stored) !== expected.hash) throw damagedCheckpoint(key, "has another hash");
  const packed = sealer.openObject("checkpoint", stored, key);
  const raw = decompressAtMost(packed, RAW_SIZE_BYTES_MAX, key);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(raw));
  } catch (thrown) {
    throw damagedCheckpoint(key, "is not JSON", thrown);
  }
  const parsed = checkpointSchema.safeParse(value);
  if (!parsed.success) throw damagedCheckpoint(key, "is not a checkpoint", parsed.error);
  if (parsed.data.sequence !== expected.sequence) {
    throw damagedCheckpoint(key, `says that it is of entry ${parsed.data.sequence}`);
  }
  return stateFromJson(parsed.data.state, parsed.data);
}

function stateToJson(state: RepositoryState): StateJson {
  return {
    header: state.header,
    headerHash: state.headerHash,
    repository: state.repositoryId,
    site: state.siteId,
    floor: state.floor,
    backups: Array.from(state.backups.values(), ({ undone, ...backup }) => ({
      ...backup,
      ...(undone === undefined ? {} : { undone: [...undone] }),
    })),
    everIds: [...state.everIds],
    buried: rows(state.buried, (backup, origin) => ({ backup, ...origin })),
    pins: rows(state.pins, (pin, value) => ({ pin, ...value })),
    keeps: rows(state.keeps, (operation, { segments, ...keep }) => ({
      operation,
      segments: [...segments],
      ...keep,
    })),
    segments: [...state.segments.values()],
    retired: rows(state.retired, (pack, value) => ({ pack, ...value })),
    deleted: rows(state.deleted, (pack, value) => ({ pack, ...value })),
    moves: movesToJson(state.moves),
    births: rows(state.repairs, (pack, birth) => ({ pack, birth })),
    checkpoint: state.checkpoint ?? null,
    lastCleanup: state.lastCleanup ?? null,
    ...(state.roles === undefined ? {} : { roles: state.roles }),
    ...(state.closed === undefined ? {} : { closed: state.closed }),
    ...keysToJson(state.keys),
  };
}

function stateFromJson(
  json: StateJson,
  at: { readonly sequence: number; readonly entryHash: string },
): RepositoryState {
  const { checkpoint, lastCleanup, roles, closed } = json;
  return {
    header: json.header,
    headerHash: json.headerHash,
    repositoryId: json.repository,
    siteId: json.site,
    sequence: at.sequence,
    entryHash: at.entryHash,
    floor: json.floor,
    backups: new Map(
      json.backups.map(({ forgotten, ...backup }) => [
        backup.backup,
        forgotten === undefined ? backup : { ...backup, forgotten },
      ]),
    ),
    everIds: new Set(json.everIds),
    buried: new Map(json.buried.map(({ backup, ...origin }) => [backup, origin])),
    pins: new Map(json.pins.map(({ pin, ...value }) => [pin, value])),
    keeps: new Map(json.keeps.map(({ operation, ...value }) => [operation, value])),
    segments: new Map(json.segments.map((segment) => [segment.id, segment])),
    retired: new Map(json.retired.map(({ pack, ...value }) => [pack, value])),
    deleted: new Map(json.deleted.map(({ pack, ...value }) => [pack, value])),
    moves: movesFromJson(json.moves),
    repairs: new Map(json.births.map(({ pack, birth }) => [pack, birth])),
    keys: keysFromJson(json),
    ...(checkpoint === null ? {} : { checkpoint }),
    ...(lastCleanup === null ? {} : { lastCleanup }),
    ...(roles === undefined ? {} : { roles }),
    ...(closed === undefined ? {} : { closed }),
  };
}

/**
 * One row for each repack, with the backups for which it speaks: a row for each backup would repeat
 * the packs as often as there are backups.
 */
function movesToJson(moves: RepositoryState["moves"]): StateJson["moves"] {
  const bySequence = new Map<number, { readonly move: Move; readonly backups: string[] }>();
  for (const [backup, list] of moves) {
    for (const move of list) {
      const row = bySequence.get(move.sequence);
      if (row === undefined) bySequence.set(move.sequence, { move, backups: [backup] });
      else row.backups.push(backup);
    }
  }
  return [...bySequence.values()]
    .toSorted((a, b) => a.move.sequence - b.move.sequence)
    .map(({ move, backups }) => ({
      sequence: move.sequence,
      from: [...move.from],
      to: [...move.to],
      backups: backups.toSorted(),
    }));
}

/** Nearly all keys have the same recipients, which are written once. */
function keysToJson(keys: RepositoryState["keys"]): Pick<StateJson, "keys" | "recipients"> {
  if (keys.size === 0) return {};
  const numbers = new Map<string, number>();
  const recipients: string[][] = [];
  const list = Array.from(keys, ([id, key]) => {
    const name = key.recipients.join(" ");
    const to = numbers.get(name) ?? recipients.push([...key.recipients]) - 1;
    numbers.set(name, to);
    return { id, birth: key.birth, hash: key.hash, to };
  });
  return { keys: list, recipients };
}

function keysFromJson({ keys = [], recipients = [] }: StateJson): RepositoryState["keys"] {
  return new Map(
    keys.map(({ id, birth, hash, to }) => [id, { birth, hash, recipients: recipients[to] ?? [] }]),
  );
}

function movesFromJson(rowsOfMoves: StateJson["moves"]): RepositoryState["moves"] {
  const moves = new Map<string, Move[]>();
  for (const { backups, ...move } of rowsOfMoves) {
    for (const backup of backups) {
      const list = moves.get(backup);
      if (list === undefined) moves.set(backup, [move]);
      else list.push(move);
    }
  }
  return moves;
}

function rows<Value, Row>(
  table: ReadonlyMap<string, Value>,
  toRow: (key: string, value: Value) => Row,
): Row[] {
  return Array.from(table, ([key, value]) => toRow(key, value));
}

function damagedCheckpoint(key: string, why: string, cause?: unknown): AppError {
  return new AppError("damaged", `${key} ${why}.`, {
    guidance: "The log itself tells the same, more slowly; `astacus site check` looks at the rest.",
    context: { key },
    cause,
  });
}
