/**
 * What routes answer, as schemas: for OpenAPI and for tests. The annotations tie them to the types
 * of the cluster, so that a field which changes there does not compile here.
 */
import { z } from "zod";
import type { BackupSummary } from "../cluster/backup-summary.ts";
import { OPERATION_KINDS } from "../cluster/operations.ts";
import type { NodeProgressState, OperationProgress } from "../cluster/operations.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import type { SiteStatus } from "../cluster/site-status.ts";
import { siteUsageSchema } from "../cluster/usage.ts";

const errorKind = z.enum([
  "usage",
  "config",
  "not-found",
  "conflict",
  "refused",
  "permission",
  "unavailable",
  "timeout",
  "damaged",
  "no-space",
  "incomplete",
  "cancelled",
  "internal",
]);

const errorContext = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]));

/** An error inside of a record. */
export const errorJsonSchema = z.strictObject({
  kind: errorKind,
  message: z.string(),
  guidance: z.string().exactOptional(),
  retryable: z.boolean(),
  context: errorContext.exactOptional(),
});

/** The body of every answer that is an error. */
export const errorAnswerSchema = errorJsonSchema.extend({ code: z.string() });

const count = z.number().min(0);

const nodeProgressSchema: z.ZodType<NodeProgressState> = z.looseObject({
  phase: z.string(),
  state: z.enum(["waiting", "running", "done", "failed"]),
  files: count,
  bytes: count,
  filesTotal: count.exactOptional(),
  bytesTotal: count.exactOptional(),
  readBytes: count,
  newBytes: count,
  storedBytes: count,
  message: z.string().exactOptional(),
});

/** How far an operation is. */
export const progressSchema: z.ZodType<OperationProgress> = z.looseObject({
  phase: z.string(),
  message: z.string().exactOptional(),
  files: count,
  filesTotal: count.exactOptional(),
  bytes: count,
  bytesTotal: count.exactOptional(),
  readBytes: count,
  newBytes: count,
  storedBytes: count,
  handled: count,
  failed: count,
  total: count,
  nodes: z.record(z.string(), nodeProgressSchema),
});

const jsonValue = z.json();

/** An amount of money. */
export const money = z.strictObject({ amount: count, currency: z.string() });

/** One operation. */
export const operationSchema: z.ZodType<OperationRecord> = z.strictObject({
  id: z.string().regex(/^[0-9a-f]{32}$/),
  kind: z.enum(OPERATION_KINDS),
  state: z.enum(["starting", "running", "done", "failed", "cancelled"]),
  coordinator: z.string(),
  started: z.string(),
  ended: z.string().exactOptional(),
  request: jsonValue,
  result: jsonValue.exactOptional(),
  error: errorJsonSchema.exactOptional(),
  progress: progressSchema.exactOptional(),
  usage: z.array(siteUsageSchema).exactOptional(),
});

/** A list of operations. */
export const operationsSchema = z.strictObject({ operations: z.array(operationSchema) });

const summaryShape = {
  id: z.string(),
  name: z.string(),
  cluster: z.string(),
  product: z.string(),
  started: z.string(),
  ended: z.string(),
  complete: z.boolean(),
  degraded: z.boolean(),
  nodes: z.array(z.string()),
  files: count,
  bytes: count,
  newBytes: count,
  storedBytes: count,
  problemCount: count,
  pinned: z.boolean(),
  forgotten: z.strictObject({ time: z.string(), reason: z.string() }).exactOptional(),
  provedAt: z.string().exactOptional(),
  keep: z.boolean(),
  reasons: z.array(z.string()),
  sequence: count,
  site: z.string(),
  sites: z.record(z.string(), z.enum(["verified", "acknowledged", "lagging", "-"])),
};

/** One row of a list of backups. */
export const backupSummarySchema: z.ZodType<BackupSummary> = z.strictObject(summaryShape);

/** All backups; `notice` says why they are not the primary's, `warnings` what is to be seen to. */
export const backupsSchema = z.strictObject({
  backups: z.array(backupSummarySchema),
  notice: z.string().exactOptional(),
  warnings: z.array(z.string()).exactOptional(),
});

/** One site. */
export const siteStatusSchema: z.ZodType<SiteStatus> = z.strictObject({
  name: z.string(),
  role: z.enum(["primary", "mirror", "archive", "closed", "unknown"]),
  id: z.string().exactOptional(),
  location: z.string().exactOptional(),
  configured: z.boolean(),
  reachable: z.boolean(),
  error: z.string().exactOptional(),
  sequence: count.exactOptional(),
  backups: count.exactOptional(),
  storedBytes: count.exactOptional(),
  storagePerMonth: money.exactOptional(),
  usage: siteUsageSchema.exactOptional(),
  lock: z
    .strictObject({
      mode: z.enum(["governance", "compliance"]),
      until: z.string().exactOptional(),
      ending: z.boolean(),
      packs: count.exactOptional(),
    })
    .exactOptional(),
  lag: z
    .strictObject({
      backups: count,
      bytes: count,
      oldest: z.string().exactOptional(),
      ageSeconds: count.exactOptional(),
    })
    .exactOptional(),
});

/** One backup, whole: shares of the nodes, problems, the product's state. */
export const backupDetailSchema = z.looseObject({
  ...summaryShape,
  shares: z.array(z.looseObject({})),
  problems: z.array(z.unknown()),
  state: z.record(z.string(), z.unknown()),
  notice: z.string().exactOptional(),
});

/** What a restore would do. */
export const restorePlanSchema = z.looseObject({
  backup: z.looseObject({
    id: z.string(),
    name: z.string(),
    complete: z.boolean(),
    degraded: z.boolean(),
  }),
  nodes: z.array(z.looseObject({ from: z.string(), to: z.string(), zone: z.string() })),
  refusals: z.array(z.string()),
  totals: z.record(z.string(), count),
  estimateMs: count.exactOptional(),
  notice: z.string().exactOptional(),
});

/** How the cluster is. */
export const statusSchema = z.looseObject({
  node: z.string(),
  cluster: z.string(),
  product: z.string(),
  version: z.string(),
  repository: z.string(),
  site: z.looseObject({ name: z.string(), location: z.string() }),
  sites: z.array(siteStatusSchema).exactOptional(),
  notice: z.string().exactOptional(),
  warnings: z.array(z.string()).exactOptional(),
  sequence: count,
  backups: count,
  running: z.array(operationSchema),
  recent: z.array(operationSchema),
  nodes: z.array(z.looseObject({ name: z.string(), address: z.string(), reachable: z.boolean() })),
});
