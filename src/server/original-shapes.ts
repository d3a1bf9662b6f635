/**
 * Requests and answers of the original Astacus, translated to and from ours. Names of backups carry
 * the original's `backup-` in front; every place that takes a name takes both forms.
 */
import { z } from "zod";
import { AppError } from "../base/error.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";
import type { BackupSummary } from "../cluster/backup-summary.ts";
import type { MapPair } from "../cluster/node-map.ts";
import type { OperationRecord, OperationState } from "../cluster/operations.ts";
import type { Config } from "./config.ts";
import type { NodeApi } from "./server-context.ts";

const index = z.int().min(0).nullish();
const text = z.string().max(2000).nullish();

const partialNode = z.strictObject({
  backup_index: index,
  backup_hostname: text,
  node_index: index,
  node_url: text,
});

/** The body of `POST /restore`. Unknown fields were ignored, and are. */
export const restoreBody = z.object({
  storage: z.string().default(""),
  name: z.string().max(200).default(""),
  partial_restore_nodes: z.array(partialNode).max(64).nullish(),
  stop_after_step: z.string().nullish(),
});

const limit = z.int().min(0).max(100_000).nullish();

/** The body of `POST /cleanup`. */
export const cleanupBody = z.object({
  storage: z.string().default(""),
  retention: z
    .object({ minimum_backups: limit, maximum_backups: limit, keep_days: limit })
    .nullish(),
  explicit_delete: z.array(z.string().min(1).max(200)).max(10_000).default([]),
});

/** Our states in the original's words. */
export const STATES: Readonly<Record<OperationState, "starting" | "running" | "done" | "fail">> = {
  starting: "starting",
  running: "running",
  done: "done",
  failed: "fail",
  cancelled: "fail",
};

/** `progress` of an operation; when it has ended, what it handled is what its result counts. */
export function progressOf(record: OperationRecord): object {
  const { handled = 0, failed = 0, total = 0 } = record.progress ?? {};
  if (record.ended === undefined) return { handled, failed, total, final: false };
  const count = filesOf(record.result);
  const isDone = record.state === "done";
  return { handled: count, failed: isDone ? 0 : 1, total: isDone ? count : count + 1, final: true };
}

/** The answer of `GET /list`. */
export function listOriginal(backups: readonly BackupSummary[], storage: string): object {
  const rows = backups.map((backup) => ({
    name: backup.name.startsWith("backup-") ? backup.name : `backup-${backup.name}`,
    start: backup.started,
    end: backup.ended,
    plugin: backup.product === "m3" ? "m3db" : backup.product,
    attempt: 1,
    nodes: backup.nodes.length,
    files: backup.files,
    total_size: backup.bytes,
    upload_size: backup.newBytes,
    upload_stored_size: backup.storedBytes,
    cluster_files: backup.files,
    cluster_data_size: backup.bytes,
  }));
  return { storages: [{ storage_name: storage, backups: rows }] };
}

/** The policy for one cleanup: rules that the request names replace those of the configuration. */
export function retentionOf(
  wanted: z.infer<typeof cleanupBody>["retention"],
  configured: RetentionPolicy,
): RetentionPolicy | undefined {
  if (wanted === undefined || wanted === null) return undefined;
  const { minimum_backups: minimum, maximum_backups: maximum, keep_days: keepDays } = wanted;
  const said = Object.entries({ minimum, maximum, keepDays }).filter(
    ([, value]) => value !== undefined && value !== null,
  );
  return said.length === 0 ? undefined : { ...configured, ...Object.fromEntries(said) };
}

/** Which share goes where, by index, name or address; undefined for the whole cluster. */
export async function partialNodes(
  body: z.infer<typeof restoreBody>,
  node: NodeApi,
  config: Config,
): Promise<MapPair[] | undefined> {
  const wanted = body.partial_restore_nodes ?? [];
  if (wanted.length === 0) return undefined;
  // Answers of nodes come in any order; an index counts in that of their names.
  const shares = (await node.showBackup(body.name)).nodes.toSorted();
  return wanted.map((one, place) => {
    const from = oneOf(one.backup_index, one.backup_hostname, `${place}: backup`);
    const to = oneOf(one.node_index, one.node_url, `${place}: node`);
    const share = typeof from === "number" ? shares[from] : from;
    const target =
      typeof to === "number"
        ? config.nodes[to]
        : config.nodes.find((each) => isAddressOf(to, each.address) || each.name === to);
    if (share === undefined) throw noSuch(place, "backup", shares);
    if (target === undefined) {
      throw noSuch(
        place,
        "node",
        config.nodes.map((each) => each.address),
      );
    }
    return { from: share, to: target.name };
  });
}

function oneOf(
  index: number | null | undefined,
  name: string | null | undefined,
  what: string,
): number | string {
  const given = [index, name].filter((value) => value !== undefined && value !== null);
  const only = given[0];
  if (only !== undefined && given.length === 1) return only;
  throw new AppError("usage", `partial_restore_nodes.${what}: give its index or its name.`, {
    context: { status: 422, reason: "invalid-request" },
  });
}

function noSuch(place: number, what: string, known: readonly string[]): AppError {
  return new AppError("not-found", `partial_restore_nodes.${place}: there is no such ${what}.`, {
    guidance: `There are: ${known.join(", ")}.`,
  });
}

/** The original's addresses ended in a path (`…:5515/node`). */
function isAddressOf(url: string, address: string): boolean {
  return URL.canParse(url) && new URL(url).origin === address;
}

function filesOf(result: unknown): number {
  if (typeof result !== "object" || result === null || !("totals" in result)) return 0;
  const totals = result.totals as Record<string, unknown>;
  const files = totals["files"] ?? totals["filesWritten"];
  return typeof files === "number" ? files : 0;
}
