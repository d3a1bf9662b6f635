/**
 * Routes of operations: what runs and what ran on this node, one of them, its events, its end.
 */
import { z } from "zod";
import { AppError } from "../base/error.ts";
import { OPERATION_KINDS } from "../cluster/operations.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import { operationSchema, operationsSchema } from "./answer-schemas.ts";
import { eventResponse } from "./event-stream.ts";
import { defineRoute } from "./route.ts";
import type { Call } from "./route.ts";

/** GET /v1/operations */
export const listOperations = defineRoute({
  method: "GET",
  path: "/v1/operations",
  summary: "Operations that this node coordinates or coordinated, newest first",
  access: "read",
  query: z.strictObject({
    limit: z.coerce.number().int().min(1).max(1000).default(100),
    kind: z.enum(OPERATION_KINDS).optional(),
  }),
  answer: operationsSchema,
  run: ({ context, query }) => ({
    operations: context
      .node()
      .operations.list({ limit: query.limit, ...(query.kind && { kind: query.kind }) }),
  }),
});

/** GET /v1/operations/:id */
export const getOperation = defineRoute({
  method: "GET",
  path: "/v1/operations/:id",
  summary: "One operation",
  access: "read",
  answer: operationSchema,
  run: (call) => mustGetOperation(call),
});

/** GET /v1/operations/:id/events */
export const watchOperation = defineRoute({
  method: "GET",
  path: "/v1/operations/:id/events",
  summary:
    "Its events until its end, as NDJSON, or as server-sent events for `Accept: text/event-stream`",
  access: "read",
  answer: "application/x-ndjson",
  run: (call) => {
    const { id } = mustGetOperation(call);
    const { context, request, signal } = call;
    call.takeYourTime();
    const isSse = request.headers.get("accept")?.includes("text/event-stream") === true;
    const form = isSse ? "sse" : "ndjson";
    return eventResponse({ clock: context.clock, form, signal }, async (write, signal) => {
      for await (const event of context.node().operations.watch(id, signal)) {
        write(event, { droppable: event.type === "progress" });
      }
    });
  },
});

const cancel = (call: Call<{ reason?: string | undefined }>): OperationRecord => {
  const record = mustGetOperation(call);
  if (record.ended !== undefined) {
    throw new AppError("conflict", `Operation ${record.id} has ended: ${record.state}.`, {
      context: { reason: "operation-ended", operation: record.id },
    });
  }
  call.context.node().operations.cancel(record.id, call.body.reason ?? "asked for over HTTP");
  return mustGetOperation(call);
};

const cancelBody = z.strictObject({ reason: z.string().max(500).optional() });

/** POST /v1/operations/:id/cancel */
export const cancelOperation = defineRoute({
  method: "POST",
  path: "/v1/operations/:id/cancel",
  summary: "Asks a running operation to stop",
  access: "admin",
  body: cancelBody,
  status: 202,
  answer: operationSchema,
  run: cancel,
});

/** DELETE /v1/operations/:id */
export const deleteOperation = defineRoute({
  method: "DELETE",
  path: "/v1/operations/:id",
  summary: "The same as cancel",
  access: "admin",
  body: cancelBody,
  status: 202,
  answer: operationSchema,
  run: cancel,
});

function mustGetOperation(call: Pick<Call, "context" | "parameters">): OperationRecord {
  const id = call.parameters["id"] ?? "";
  const record = call.context.node().operations.get(id);
  if (record !== undefined) return record;
  throw new AppError("not-found", `There is no operation ${id} on this node.`, {
    guidance: "Operations are known to the node that coordinates them.",
    context: { operation: id },
  });
}
