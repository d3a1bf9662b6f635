/**
 * Routes of backups: the list, one, a new one, and the marks on them. A mark is an operation too: a
 * commit to the log may have to wait for the site.
 */
import { z } from "zod";
import type { OperationRecord } from "../cluster/operations.ts";
import { backupDetailSchema, backupsSchema, operationSchema } from "./answer-schemas.ts";
import { defineRoute } from "./route.ts";
import type { Call, Route } from "./route.ts";

/** Backups have names that people can type. */
export const backupName = z
  .string()
  // oxlint-disable-next-line no-control-regex -- they are what is excluded
  .regex(/^[^\u0000-\u001f\u007f/]{1,200}$/, "expected 1 to 200 printable characters, no slash");

/** The notice of an answer: why it is not the primary that was read. */
export function noticeOf({ notice }: { readonly notice: string | undefined }): {
  readonly notice?: string;
} {
  return notice === undefined ? {} : { notice };
}

/** GET /v1/backups */
export const listBackups = defineRoute({
  method: "GET",
  path: "/v1/backups",
  summary: "All backups, oldest first, each with what retention would do and why",
  access: "read",
  query: z.strictObject({ forgotten: z.stringbool().default(false) }),
  answer: backupsSchema,
  run: async ({ context, query, signal }) => {
    const node = context.node();
    const backups = await node.listBackups({ forgotten: query.forgotten, signal });
    const { warnings } = node;
    return {
      backups,
      ...noticeOf(node),
      ...(warnings.length === 0 ? {} : { warnings: [...warnings] }),
    };
  },
});

/** GET /v1/backups/:backup */
export const showBackup = defineRoute({
  method: "GET",
  path: "/v1/backups/:backup",
  summary: "One backup by name or id: its nodes, volumes and problems",
  access: "read",
  answer: backupDetailSchema,
  run: async ({ context, parameters, signal }) => {
    const node = context.node();
    const detail = await node.showBackup(parameters["backup"] ?? "", signal);
    return { ...detail, ...noticeOf(node) };
  },
});

/** POST /v1/backups */
export const startBackup = defineRoute({
  method: "POST",
  path: "/v1/backups",
  summary: "Starts a backup of the whole cluster",
  access: "admin",
  body: z.strictObject({ name: backupName.exactOptional() }),
  answer: operationSchema,
  status: 202,
  run: ({ context, body }) => context.start((node) => node.startBackup(body)),
});

type Mark = "delete" | "undelete" | "pin" | "unpin";

const markBody = z.strictObject({ reason: z.string().max(500).exactOptional() });

/** DELETE /v1/backups/:backup */
export const forgetBackup = defineRoute({
  method: "DELETE",
  path: "/v1/backups/:backup",
  summary: "Forgets a backup; `undelete` brings it back until cleanup has removed its data",
  access: "admin",
  body: markBody,
  answer: operationSchema,
  status: 202,
  run: (call) => startMark(call, "delete"),
});

/** POST /v1/backups/:backup/undelete */
export const undeleteBackup = markRoute("undelete", "Brings a forgotten backup back");

/** POST /v1/backups/:backup/pin */
export const pinBackup = markRoute("pin", "Keeps a backup whatever retention says");

/** POST /v1/backups/:backup/unpin */
export const unpinBackup = markRoute("unpin", "Leaves a backup to retention again");

function markRoute(mark: Mark, summary: string): Route {
  return defineRoute({
    method: "POST",
    path: `/v1/backups/:backup/${mark}`,
    summary,
    access: "admin",
    body: markBody,
    answer: operationSchema,
    status: 202,
    run: (call) => startMark(call, mark),
  });
}

function startMark(call: Call<z.infer<typeof markBody>>, mark: Mark): OperationRecord {
  const backups = [call.parameters["backup"] ?? ""];
  return call.context.start((node) => node.startMark(mark, { backups, ...call.body }));
}
