/**
 * What a node remembers of its scrubbing: for each site where its cursor stands and how its last
 * cycles ended, what other nodes said of theirs, and which backups were read whole by `verify --deep`,
 * or found wrong. It lies in `operations.sqlite`, so that a restart goes on where the last step ended. A row that
 * does not fit its schema comes from another version, and is as if it were not there.
 */
import type { Database } from "bun:sqlite";
import { z } from "zod";

const figures = {
  packs: z.number(),
  bytes: z.number(),
  /** Packs that were missing or damaged, and how many of them were repaired. */
  problems: z.number(),
  repaired: z.number(),
};

/** When reading began, on the wall clock and in the log: older backups were there from the start. */
const startSchema = z.strictObject({ startedMs: z.number(), sequence: z.number() });

const cycleSchema = startSchema.extend({ after: z.string(), ...figures });
const endedSchema = startSchema.extend({ endedMs: z.number(), ...figures });

const rowSchema = z.strictObject({
  /** The site's name at the last step. */
  name: z.string(),
  share: z.strictObject({ rank: z.number(), count: z.number() }),
  cycle: cycleSchema.optional(),
  /** The last cycle that came to its end, and the last of them that found nothing wrong. */
  last: endedSchema.optional(),
  clean: startSchema.optional(),
  /** The next step is due then, and at most so long after the last one. */
  dueMs: z.number(),
  waitMs: z.number(),
  /** Since this node began. */
  bytesTotal: z.number(),
});

/** One node's scrubbing of one site: its share in a cycle, or the whole in one go. */
export type ScrubRow = z.infer<typeof rowSchema>;

/** A cycle under way. */
export type ScrubCycle = z.infer<typeof cycleSchema>;

/** When a cycle began. */
export type ScrubStart = z.infer<typeof startSchema>;

const backupSchema = z.strictObject({ site: z.string(), backup: z.string(), atMs: z.number() });

/** What a node tells others. */
export const scrubAnswerSchema = z.strictObject({
  sites: z.array(
    z.strictObject({
      site: z.string(),
      share: z.strictObject({ rank: z.number(), count: z.number() }),
      clean: startSchema.optional(),
      /** All packs in one go, by hand. */
      whole: startSchema.optional(),
      problems: z.number(),
    }),
  ),
  verified: z.array(backupSchema),
  /** What was found wrong since: earlier proofs count no more. */
  damaged: z.array(backupSchema).default([]),
});
export type ScrubAnswer = z.infer<typeof scrubAnswerSchema>;

/** A share of a cycle, or all packs at once. */
export type ScrubPart = "share" | "whole";

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS scrub (
    site TEXT NOT NULL, part TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (site, part)) STRICT;
  CREATE TABLE IF NOT EXISTS scrub_peer (node TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS scrub_verified (
    site TEXT NOT NULL, backup TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (site, backup)) STRICT;
  CREATE TABLE IF NOT EXISTS scrub_damaged (
    site TEXT NOT NULL, backup TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (site, backup)) STRICT;
`;

type BackupTable = "scrub_verified" | "scrub_damaged";

/** Proofs of single backups, and finds against them, that are kept; the oldest go. */
const VERIFIED_COUNT_MAX = 1000;

/** The tables of scrubbing. */
export class ScrubJournal {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
    this.#database.run(SCHEMA);
  }

  get(site: string, part: ScrubPart): ScrubRow | undefined {
    const row = this.#database
      .query<{ value: string }, { site: string; part: string }>(
        "SELECT value FROM scrub WHERE site = $site AND part = $part",
      )
      .get({ site, part });
    return row === null ? undefined : parsed(rowSchema, row.value);
  }

  /** Ids of all sites that were ever scrubbed here. */
  listSites(): string[] {
    return this.#database
      .query<{ site: string }, []>("SELECT DISTINCT site FROM scrub ORDER BY site")
      .all()
      .map(({ site }) => site);
  }

  set(site: string, part: ScrubPart, row: ScrubRow): void {
    this.#database
      .query(
        `INSERT INTO scrub (site, part, value) VALUES ($site, $part, $value)
         ON CONFLICT (site, part) DO UPDATE SET value = $value`,
      )
      .run({ site, part, value: JSON.stringify(row) });
  }

  getPeer(node: string): ScrubAnswer | undefined {
    const row = this.#database
      .query<{ value: string }, { node: string }>("SELECT value FROM scrub_peer WHERE node = $node")
      .get({ node });
    return row === null ? undefined : parsed(scrubAnswerSchema, row.value);
  }

  setPeer(node: string, answer: ScrubAnswer): void {
    this.#database
      .query(
        `INSERT INTO scrub_peer (node, value) VALUES ($node, $value)
         ON CONFLICT (node) DO UPDATE SET value = $value`,
      )
      .run({ node, value: JSON.stringify(answer) });
  }

  /** Every byte of a backup was read and was right. */
  addVerified(site: string, backup: string, atMs: number): void {
    this.#remember("scrub_verified", { site, backup, atMs });
  }

  /** A backup was found wrong: what proved it before proves it no more. */
  addDamaged(site: string, backup: string, atMs: number): void {
    this.#remember("scrub_damaged", { site, backup, atMs });
  }

  listDamaged(): ScrubAnswer["damaged"] {
    return this.#recall("scrub_damaged");
  }

  listVerified(): ScrubAnswer["verified"] {
    return this.#recall("scrub_verified");
  }

  #remember(
    table: BackupTable,
    row: { readonly site: string; readonly backup: string; readonly atMs: number },
  ): void {
    this.#database
      .query(
        `INSERT INTO ${table} (site, backup, at_ms) VALUES ($site, $backup, $atMs)
         ON CONFLICT (site, backup) DO UPDATE SET at_ms = max(at_ms, $atMs)`,
      )
      .run({ ...row });
    this.#database.run(
      `DELETE FROM ${table} WHERE rowid NOT IN
         (SELECT rowid FROM ${table} ORDER BY at_ms DESC LIMIT ${VERIFIED_COUNT_MAX})`,
    );
  }

  #recall(table: BackupTable): { site: string; backup: string; atMs: number }[] {
    return this.#database
      .query<{ site: string; backup: string; atMs: number }, []>(
        `SELECT site, backup, at_ms AS atMs FROM ${table} ORDER BY at_ms DESC`,
      )
      .all();
  }
}

function parsed<Value>(schema: z.ZodType<Value>, text: string): Value | undefined {
  const found = schema.safeParse(JSON.parse(text));
  return found.success ? found.data : undefined;
}
