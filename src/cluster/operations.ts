/**
 * The journal of operations: what was asked, how far it is, how it ended. It lies in
 * `operations.sqlite`, which is not a cache: after a restart every operation of the process before
 * is known, and one that was running says so and what to do. Holds no lock on anything: an
 * operation is a background task with a record.
 */
import type { Database } from "bun:sqlite";
import type { AppErrorJson } from "../base/error.ts";
import { AppError, toAppError } from "../base/error.ts";
import type { Clock, Random } from "../base/doors.ts";
import { toHex } from "../base/hex.ts";
import type { JsonValue } from "./protocol.ts";
import type { CountedSite, SiteUsage } from "./usage.ts";
import { addUsages, meterUsage, priceUsages } from "./usage.ts";

/** Everything that is journaled as an operation. */
export const OPERATION_KINDS = [
  "backup",
  "restore",
  "cleanup",
  "verify",
  "delete",
  "undelete",
  "pin",
  "unpin",
  "scrub",
  "migrate",
  "retire",
  "sync",
  "promote",
  "update-sites",
] as const;

export type OperationKind = (typeof OPERATION_KINDS)[number];
export type OperationState = "starting" | "running" | "done" | "failed" | "cancelled";

/** How far one node is. */
export type NodeProgressState = {
  readonly phase: string;
  readonly state: "waiting" | "running" | "done" | "failed";
  readonly files: number;
  readonly bytes: number;
  readonly filesTotal?: number;
  readonly bytesTotal?: number;
  readonly readBytes: number;
  readonly newBytes: number;
  readonly storedBytes: number;
  readonly message?: string;
};

/** How far an operation is, over all nodes. */
export type OperationProgress = {
  readonly phase: string;
  readonly message?: string;
  readonly files: number;
  readonly filesTotal?: number;
  readonly bytes: number;
  readonly bytesTotal?: number;
  readonly readBytes: number;
  readonly newBytes: number;
  readonly storedBytes: number;
  readonly handled: number;
  readonly failed: number;
  readonly total: number;
  readonly nodes: Readonly<Record<string, NodeProgressState>>;
};

/** One operation, as it lies in the journal and goes over the wire. */
export type OperationRecord = {
  readonly id: string;
  readonly kind: OperationKind;
  readonly state: OperationState;
  readonly coordinator: string;
  readonly started: string;
  readonly ended?: string;
  readonly request: JsonValue;
  readonly result?: JsonValue;
  readonly error?: AppErrorJson;
  readonly progress?: OperationProgress;
  /** What passed to each site while it ran, on all nodes that took part. */
  readonly usage?: readonly SiteUsage[];
};

/** What happens to an operation that is being watched. */
export type OperationEvent =
  | { readonly type: "progress"; readonly progress: OperationProgress }
  | { readonly type: "message"; readonly message: string }
  | { readonly type: "end"; readonly record: OperationRecord };

/** What the running function gets. */
export type OperationContext = {
  readonly id: string;
  readonly signal: AbortSignal;
  progress(change: Partial<OperationProgress>): void;
  say(message: string): void;
  /** Adds what another node asked of its sites for this operation. */
  spent(usage: readonly SiteUsage[]): void;
};

const EMPTY_PROGRESS: OperationProgress = {
  phase: "starting",
  files: 0,
  bytes: 0,
  readBytes: 0,
  newBytes: 0,
  storedBytes: 0,
  handled: 0,
  failed: 0,
  total: 0,
  nodes: {},
};

/** Records kept; older ones go. */
const RECORD_COUNT_MAX = 10_000;

type Running = {
  record: OperationRecord;
  readonly abort: AbortController;
  readonly watchers: Set<(event: OperationEvent) => void>;
  done: Promise<void>;
};

type Row = {
  id: string;
  kind: string;
  state: string;
  coordinator: string;
  started: string;
  ended: string | null;
  request: string;
  result: string | null;
  error: string | null;
  usage: string | null;
};

const COLUMNS = "id, kind, state, coordinator, started, ended, request, result, error, usage";

/** Starts, remembers, watches and cancels operations of this node. */
export class Operations {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #coordinator: string;
  readonly #running = new Map<string, Running>();
  /** Records that the journal would not take (a full disk); known until the process ends. */
  readonly #unsaved = new Map<string, OperationRecord>();
  readonly #onEnd: ((record: OperationRecord) => void) | undefined;
  readonly #sites: () => readonly CountedSite[];
  #closing = false;

  constructor(options: {
    readonly database: Database;
    readonly clock: Clock;
    readonly random: Random;
    readonly coordinator: string;
    readonly onEnd?: (record: OperationRecord) => void;
    /** The sites whose requests are counted for the records. */
    readonly sites?: () => readonly CountedSite[];
  }) {
    this.#database = options.database;
    this.#clock = options.clock;
    this.#random = options.random;
    this.#coordinator = options.coordinator;
    this.#onEnd = options.onEnd;
    this.#sites = options.sites ?? (() => []);
    this.#database.run(
      `CREATE TABLE IF NOT EXISTS operation (
         id TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, coordinator TEXT NOT NULL,
         started TEXT NOT NULL, ended TEXT, request TEXT NOT NULL, result TEXT, error TEXT,
         usage TEXT) STRICT`,
    );
    this.#addMissingColumn();
    this.#failWhatADeadProcessLeft();
  }

  /** Begins `run` in the background and returns its record at once. */
  start(
    kind: OperationKind,
    request: JsonValue,
    run: (context: OperationContext) => Promise<JsonValue>,
  ): OperationRecord {
    if (this.#closing) {
      throw new AppError("unavailable", "This server is shutting down.", {
        guidance: "Ask another node of the cluster, or wait until this one is back.",
      });
    }
    const record: OperationRecord = {
      id: toHex(this.#random.bytes(16)),
      kind,
      state: "starting",
      coordinator: this.#coordinator,
      started: new Date(this.#clock.now()).toISOString(),
      request,
      progress: EMPTY_PROGRESS,
    };
    this.#save(record);
    const running: Running = {
      record,
      abort: new AbortController(),
      watchers: new Set(),
      done: Promise.resolve(),
    };
    this.#running.set(record.id, running);
    running.done = this.#drive(running, run);
    return record;
  }

  /** The record of an operation, running or ended. */
  get(id: string): OperationRecord | undefined {
    const running = this.#running.get(id);
    if (running !== undefined) return running.record;
    const unsaved = this.#unsaved.get(id);
    if (unsaved !== undefined) return unsaved;
    const row = this.#database
      .query<Row, { id: string }>(`SELECT ${COLUMNS} FROM operation WHERE id = $id`)
      .get({ id });
    return row === null ? undefined : recordOfRow(row);
  }

  /** Newest first. */
  list(
    options: { readonly limit?: number; readonly kind?: OperationKind } = {},
  ): OperationRecord[] {
    const rows = this.#database
      .query<Row, { kind: string; limit: number }>(
        `SELECT ${COLUMNS} FROM operation
         WHERE $kind = '' OR kind = $kind ORDER BY started DESC, rowid DESC LIMIT $limit`,
      )
      .all({ kind: options.kind ?? "", limit: options.limit ?? 100 });
    return rows.map(
      (row) => this.#running.get(row.id)?.record ?? this.#unsaved.get(row.id) ?? recordOfRow(row),
    );
  }

  /** What is under way now. */
  running(): OperationRecord[] {
    return [...this.#running.values()].map((running) => running.record);
  }

  /** Asks a running operation to stop; false if it is not running. */
  cancel(id: string, reason: string): boolean {
    const running = this.#running.get(id);
    if (running === undefined) return false;
    running.abort.abort(
      new AppError("cancelled", `The operation was cancelled: ${reason}.`, {
        guidance: "Run it again when wanted; what was stored is reused.",
      }),
    );
    return true;
  }

  /** Resolves with the record when the operation has ended. */
  async wait(id: string): Promise<OperationRecord> {
    const running = this.#running.get(id);
    if (running !== undefined) await running.done;
    const record = this.get(id);
    if (record === undefined) throw unknownOperation(id);
    return record;
  }

  /** Events from now on, ending with `end`; begins with the current state. */
  async *watch(id: string, signal?: AbortSignal): AsyncGenerator<OperationEvent> {
    const running = this.#running.get(id);
    if (running === undefined) {
      const record = this.get(id);
      if (record === undefined) throw unknownOperation(id);
      yield { type: "end", record };
      return;
    }
    const queue: OperationEvent[] = [];
    let wake: (() => void) | undefined;
    const push = (event: OperationEvent): void => {
      // Only the newest progress matters to a slow reader.
      const last = queue.at(-1);
      if (event.type === "progress" && last?.type === "progress") queue.pop();
      queue.push(event);
      wake?.();
    };
    const onAbort = (): void => wake?.();
    running.watchers.add(push);
    signal?.addEventListener("abort", onAbort);
    try {
      push({ type: "progress", progress: running.record.progress ?? EMPTY_PROGRESS });
      for (;;) {
        const event = queue.shift();
        if (event !== undefined) {
          yield event;
          if (event.type === "end") return;
        } else if (signal?.aborted === true) {
          return;
        } else {
          await new Promise<void>((resolve) => (wake = resolve));
          wake = undefined;
        }
      }
    } finally {
      running.watchers.delete(push);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** For shutdown: cancels everything with a journaled reason and waits for it to end. */
  async settle(): Promise<void> {
    this.#closing = true;
    const all = [...this.#running.values()];
    for (const running of all) this.cancel(running.record.id, "the server is shutting down");
    for (const running of all) await running.done;
  }

  async #drive(
    running: Running,
    run: (context: OperationContext) => Promise<JsonValue>,
  ): Promise<void> {
    await Promise.resolve();
    this.#change(running, { state: "running" });
    const sites = this.#sites();
    const measure = meterUsage(sites);
    let elsewhere: readonly SiteUsage[] = [];
    const context: OperationContext = {
      id: running.record.id,
      signal: running.abort.signal,
      progress: (change) => {
        const progress = { ...(running.record.progress ?? EMPTY_PROGRESS), ...change };
        running.record = { ...running.record, progress };
        this.#emit(running, { type: "progress", progress });
      },
      say: (message) => this.#emit(running, { type: "message", message }),
      spent: (usage) => {
        elsewhere = addUsages(elsewhere, usage);
      },
    };
    let end: Partial<OperationRecord>;
    try {
      running.abort.signal.throwIfAborted();
      end = { state: "done", result: await run(context) };
    } catch (thrown) {
      const error = toAppError(running.abort.signal.aborted ? running.abort.signal.reason : thrown);
      end = {
        state: error.kind === "cancelled" ? "cancelled" : "failed",
        error: error.toJSON(),
      };
    }
    const usage = priceUsages(addUsages(measure(), elsewhere), sites);
    const ended = new Date(this.#clock.now()).toISOString();
    this.#change(running, { ...end, ended, ...(usage.length === 0 ? {} : { usage }) });
    this.#running.delete(running.record.id);
    this.#emit(running, { type: "end", record: running.record });
    this.#onEnd?.(running.record);
  }

  #change(running: Running, change: Partial<OperationRecord>): void {
    running.record = { ...running.record, ...change };
    try {
      this.#save(running.record);
    } catch {
      // What has begun goes on, and its outcome can be asked for; after a restart it counts as failed.
      this.#unsaved.set(running.record.id, running.record);
    }
  }

  #emit(running: Running, event: OperationEvent): void {
    for (const watcher of running.watchers) watcher(event);
  }

  #save(record: OperationRecord): void {
    this.#database
      .query(
        `INSERT INTO operation
           (${COLUMNS})
         VALUES ($id, $kind, $state, $coordinator, $started, $ended, $request, $result, $error,
           $usage)
         ON CONFLICT (id) DO UPDATE SET state = $state, ended = $ended, result = $result,
           error = $error, usage = $usage`,
      )
      .run({
        id: record.id,
        kind: record.kind,
        state: record.state,
        coordinator: record.coordinator,
        started: record.started,
        ended: record.ended ?? null,
        request: JSON.stringify(record.request),
        result: record.result === undefined ? null : JSON.stringify(record.result),
        error: record.error === undefined ? null : JSON.stringify(record.error),
        usage: record.usage === undefined ? null : JSON.stringify(record.usage),
      });
  }

  /** A journal of a version that did not count. */
  #addMissingColumn(): void {
    const columns = this.#database
      .query<{ name: string }, []>("SELECT name FROM pragma_table_info('operation')")
      .all();
    if (columns.some(({ name }) => name === "usage")) return;
    this.#database.run("ALTER TABLE operation ADD COLUMN usage TEXT");
  }

  #failWhatADeadProcessLeft(): void {
    const error = new AppError("unavailable", "The server ended while this operation ran.", {
      guidance: "Run the same command again; what was stored before is reused.",
    });
    this.#database
      .query(
        `UPDATE operation SET state = 'failed', ended = $now, error = $error
         WHERE state IN ('starting', 'running')`,
      )
      .run({ now: new Date(this.#clock.now()).toISOString(), error: JSON.stringify(error) });
    this.#database
      .query(
        `DELETE FROM operation WHERE id NOT IN
           (SELECT id FROM operation ORDER BY started DESC LIMIT $keep)`,
      )
      .run({ keep: RECORD_COUNT_MAX });
  }
}

function unknownOperation(id: string): AppError {
  return new AppError("not-found", `There is no operation ${id} on this node.`, {
    guidance:
      "Operations are known to the node that coordinates them; `astacus status` lists them.",
  });
}

function recordOfRow(row: Row): OperationRecord {
  return {
    id: row.id,
    kind: row.kind as OperationKind,
    state: row.state as OperationState,
    coordinator: row.coordinator,
    started: row.started,
    ...(row.ended === null ? {} : { ended: row.ended }),
    request: JSON.parse(row.request) as JsonValue,
    ...(row.result === null ? {} : { result: JSON.parse(row.result) as JsonValue }),
    ...(row.error === null ? {} : { error: JSON.parse(row.error) as AppErrorJson }),
    ...(row.usage === null ? {} : { usage: JSON.parse(row.usage) as SiteUsage[] }),
  };
}
