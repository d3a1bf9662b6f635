/**
 * The routes of the original Astacus, for cron jobs and monitors that use them: the same paths,
 * fields and error codes over the operations of now. What has no meaning any more answers 410 and
 * says why (docs/from-the-original.md has the table). Errors carry their fields twice, at the top and
 * in `detail`, where the original's framework put them.
 */
import type { Context, Hono } from "hono";
import { AppError, toAppError } from "../base/error.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import { checkAccess } from "./auth.ts";
import { errorAnswerOf, statusOf } from "./error-answer.ts";
import { listOriginal, partialNodes } from "./original-shapes.ts";
import { progressOf, restoreBody, retentionOf, STATES } from "./original-shapes.ts";
import { cleanupBody } from "./original-shapes.ts";
import { mustParse, readJson } from "./route.ts";
import type { ListenerBindings, ServerContext } from "./server-context.ts";

type Environment = { Bindings: ListenerBindings };
type App = Hono<Environment>;
type Handler = (c: Context<Environment>) => unknown;

const LOCKS = "Nodes are leased by the operations themselves; there is nothing to lock by hand.";
const DELTAS =
  "There are no deltas: every backup is complete, and costs what has changed. Use /backup, /list " +
  "and /restore.";
const NODE_CALLS =
  "Nodes speak another protocol now, over /v1/node, and only with each other. Bring all nodes to " +
  "this version.";

/** Adds them to the application. */
export function addOriginalRoutes(app: App, context: ServerContext): void {
  const guarded = (access: "read" | "admin", handler: Handler) => async (c: Context<Environment>) =>
    await answer(context, c, { access, handler });
  const gone = (reason: string) =>
    guarded("read", () => {
      throw new AppError("refused", "This route of the original Astacus is gone.", {
        guidance: reason,
        context: { status: 410, reason: "gone" },
      });
    });
  app.get(
    "/",
    guarded("read", () => ({})),
  );
  app.post(
    "/backup",
    guarded("admin", async (c) => await startBackup(c, context)),
  );
  app.post(
    "/restore",
    guarded("admin", async (c) => await startRestore(c, context)),
  );
  app.post(
    "/cleanup",
    guarded("admin", async (c) => await startCleanup(c, context)),
  );
  app.get(
    "/list",
    guarded("read", async (c) => await list(c, context)),
  );
  app.get(
    "/busy",
    guarded("read", () => context.node().operations.running().length > 0),
  );
  app.post(
    "/config/reload",
    guarded("admin", async () => {
      await context.reload();
      return {};
    }),
  );
  app.get(
    "/config/status",
    guarded("read", async () => await configStatus(context)),
  );
  for (const op of ["backup", "restore", "cleanup"] as const) {
    app.get(
      `/${op}/:id`,
      guarded("read", (c) => operationStatus(c, context, op)),
    );
    app.put(
      `/${op}/:id/sub-result`,
      gone("Nodes report over the stream that the coordinator holds open."),
    );
  }
  app.all("/lock", gone(LOCKS));
  app.all("/unlock", gone(LOCKS));
  app.all("/delta/*", gone(DELTAS));
  app.all("/node/*", gone(NODE_CALLS));
}

async function answer(
  context: ServerContext,
  c: Context<Environment>,
  how: { readonly access: "read" | "admin"; readonly handler: Handler },
): Promise<Response> {
  try {
    checkAccess(c.req.raw, how.access, context.config().tokens);
    return Response.json(await how.handler(c));
  } catch (thrown) {
    const error = toAppError(thrown);
    const { code, message, ...rest } = errorAnswerOf(error);
    const fields = { code, message, ...rest, ...rest.context };
    return Response.json({ ...fields, detail: fields }, { status: statusOf(error) });
  }
}

type Started = { readonly op_id: string; readonly status_url: string };

async function startBackup(c: Context<Environment>, context: ServerContext): Promise<Started> {
  await mustBeFree(context, c.req.raw.signal);
  return started(c, "backup", () => context.start((node) => node.startBackup({})));
}

async function startRestore(c: Context<Environment>, context: ServerContext): Promise<Started> {
  const body = mustParse(restoreBody, await bodyOf(c, context), "body");
  if ((body.stop_after_step ?? null) !== null) {
    throw new AppError("usage", "`stop_after_step` is gone: a restore runs to its end.", {
      guidance: "POST /v1/restores/plan shows what it would do.",
      context: { status: 422, reason: "gone" },
    });
  }
  mustKnowStorage(body.storage, context);
  const node = context.node();
  const nodes = await partialNodes(body, node, context.config());
  await mustBeFree(context, c.req.raw.signal);
  const request = {
    ...(body.name === "" ? {} : { backup: body.name }),
    ...(nodes === undefined ? {} : { nodes }),
  };
  return started(c, "restore", () => context.start((each) => each.startRestore(request)));
}

async function startCleanup(c: Context<Environment>, context: ServerContext): Promise<Started> {
  const body = mustParse(cleanupBody, await bodyOf(c, context), "body");
  mustKnowStorage(body.storage, context);
  const backups = body.explicit_delete;
  const retention = retentionOf(body.retention, context.config().retention);
  return started(c, "cleanup", () =>
    context.start((node) =>
      backups.length > 0
        ? node.startMark("delete", { backups, reason: "deleted by name" })
        : node.startCleanup(retention === undefined ? {} : { retention }),
    ),
  );
}

async function list(c: Context<Environment>, context: ServerContext): Promise<object> {
  const sites = context.config().sites;
  mustKnowStorage(c.req.query("storage") ?? "", context);
  const backups = await context.node().listBackups({ signal: c.req.raw.signal });
  return listOriginal(backups, sites[0].name);
}

async function configStatus(context: ServerContext): Promise<object> {
  const loaded = context.config().hash;
  return { config_hash: loaded, needs_reload: (await context.hashOnDisk()) !== loaded };
}

function operationStatus(
  c: Context<Environment>,
  context: ServerContext,
  op: "backup" | "restore" | "cleanup",
): object {
  const id = c.req.param("id") ?? "";
  const { operations } = context.node();
  const record = operations.get(id);
  // An explicit delete was a cleanup once.
  const isKind = record?.kind === op || (op === "cleanup" && record?.kind === "delete");
  if (record === undefined || !isKind) throw idMismatch(op, id, operations.list({ limit: 1 })[0]);
  const state = STATES[record.state];
  return op === "cleanup" ? { state } : { state, progress: progressOf(record) };
}

function idMismatch(op: string, request: string, now: OperationRecord | undefined): AppError {
  return new AppError("not-found", `There is no ${op} operation ${request} on this node.`, {
    context: {
      reason: "operation_id_mismatch",
      op,
      request,
      now: now === undefined ? "" : now.id,
    },
  });
}

function started(c: Context<Environment>, op: string, begin: () => OperationRecord): Started {
  try {
    const { id } = begin();
    return { op_id: id, status_url: `${new URL(c.req.url).origin}/${op}/${id}` };
  } catch (thrown) {
    const error = toAppError(thrown);
    throw error.kind === "conflict" ? lockUnavailable(error.message) : error;
  }
}

/** The original locked all nodes before it answered; so a held lease is told at once here too. */
async function mustBeFree(context: ServerContext, signal: AbortSignal): Promise<void> {
  const { nodes } = await context.node().status(signal);
  for (const { name, lease } of nodes) {
    if (lease !== undefined) throw lockUnavailable(`Node ${name} is held by a ${lease.kind}.`);
  }
}

function lockUnavailable(message: string): AppError {
  return new AppError("conflict", message, {
    guidance: "Wait for the other operation, or cancel it.",
    context: { reason: "cluster_lock_unavailable" },
  });
}

function mustKnowStorage(storage: string, context: ServerContext): void {
  const names = context.config().sites.map((site) => site.name);
  if (storage === "" || storage === names[0]) return;
  throw new AppError("not-found", `Operations use the site ${names[0]}, not ${storage}.`, {
    guidance: `\`primary\` of the configuration chooses among ${names.join(", ")}.`,
  });
}

async function bodyOf(c: Context<Environment>, context: ServerContext): Promise<unknown> {
  const { limits } = context.config();
  return await readJson(c.req.raw, {
    sizeBytes: limits.requestBodyBytes,
    timeoutMs: limits.requestTimeoutMs,
    clock: context.clock,
  });
}
