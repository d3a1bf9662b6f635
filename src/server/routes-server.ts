/**
 * Routes of the server itself: the state of the cluster, health, readiness, metrics, configuration.
 */
import { z } from "zod";
import { errorAnswerOf } from "./error-answer.ts";
import { statusSchema } from "./answer-schemas.ts";
import { AppError } from "../base/error.ts";
import { defineRoute } from "./route.ts";

/** GET /v1/status */
export const getStatus = defineRoute({
  method: "GET",
  path: "/v1/status",
  summary: "The cluster: nodes, newest complete backup, what runs",
  access: "read",
  answer: statusSchema,
  run: ({ context, signal }) => context.node().status(signal),
});

/** GET /healthz */
export const getHealth = defineRoute({
  method: "GET",
  path: "/healthz",
  summary: "Whether the process answers",
  access: "open",
  answer: z.strictObject({ status: z.literal("ok"), version: z.string() }),
  run: ({ context }) => ({ status: "ok", version: context.version }),
});

/** GET /readyz */
export const getReadiness = defineRoute({
  method: "GET",
  path: "/readyz",
  summary: "Whether the node can work: 503 with the reason while it cannot",
  access: "open",
  answer: z.strictObject({ ready: z.literal(true) }),
  run: ({ context }) => {
    const state = context.readiness();
    if (state.ready) return { ready: true };
    const { reason, guidance } = state;
    const error = new AppError("unavailable", reason, guidance === undefined ? {} : { guidance });
    return Response.json({ ready: false, ...errorAnswerOf(error) }, { status: 503 });
  },
});

/** GET /metrics */
export const getMetrics = defineRoute({
  method: "GET",
  path: "/metrics",
  summary: "Metrics in the text form of Prometheus",
  access: "read",
  answer: "text/plain",
  run: async ({ context }) =>
    new Response(await context.metrics(), {
      headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
    }),
});

/** POST /v1/config/reload */
export const reloadConfig = defineRoute({
  method: "POST",
  path: "/v1/config/reload",
  summary:
    "Reads the configuration file again, as SIGHUP does, and waits up to 30 s until the node works " +
    "with it; a wrong one changes nothing",
  access: "admin",
  body: z.strictObject({}),
  answer: z.strictObject({
    hash: z.string(),
    node: z.enum(["open", "busy", "opening", "failed"]),
    reason: z.string().exactOptional(),
    guidance: z.string().exactOptional(),
  }),
  run: async ({ context, takeYourTime }) => {
    takeYourTime();
    await context.reload();
    return { hash: context.config().hash, ...(await context.whenApplied()) };
  },
});
