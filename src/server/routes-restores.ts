/**
 * Routes of restores: what one would do, and doing it.
 */
import { z } from "zod";
import { operationSchema, restorePlanSchema } from "./answer-schemas.ts";
import { defineRoute } from "./route.ts";
import { noticeOf } from "./routes-backups.ts";

const nodeName = z.string().min(1).max(64);

const restoreBody = z.strictObject({
  backup: z.string().min(1).max(200).exactOptional(),
  nodes: z
    .array(z.strictObject({ from: nodeName, to: nodeName }))
    .min(1)
    .max(64)
    .exactOptional(),
  paths: z.array(z.string().min(1).max(4096)).max(1000).exactOptional(),
  incomplete: z.boolean().exactOptional(),
  /** Of age; kept in memory, for this call and its operation. */
  identities: z.array(z.string().min(1).max(4000)).max(100).exactOptional(),
});

/** POST /v1/restores/plan */
export const planRestore = defineRoute({
  method: "POST",
  path: "/v1/restores/plan",
  summary: "What a restore would do, share by share; changes nothing",
  access: "read",
  body: restoreBody,
  answer: restorePlanSchema,
  run: async ({ context, body, signal, takeYourTime }) => {
    takeYourTime();
    const node = context.node();
    const plan = await node.planRestore(body, signal);
    return { ...plan, ...noticeOf(node) };
  },
});

/** POST /v1/restores */
export const startRestore = defineRoute({
  method: "POST",
  path: "/v1/restores",
  summary: "Starts a restore; asks nothing, so look at the plan first",
  access: "admin",
  body: restoreBody,
  answer: operationSchema,
  status: 202,
  run: ({ context, body }) => context.start((node) => node.startRestore(body)),
});
