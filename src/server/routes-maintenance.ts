/**
 * Routes of what takes no lease: cleanups and verifications.
 */
import { z } from "zod";
import { operationSchema } from "./answer-schemas.ts";
import { defineRoute } from "./route.ts";

const count = (min: number) => z.int().min(min).max(100_000).exactOptional();

/** Retention rules in a request; they replace single rules of the configuration. */
export const retentionBody = z.strictObject({
  minimum: count(0),
  maximum: count(0),
  keepDays: count(0),
  keepLast: count(0),
  keepWithinMs: z.int().min(0).exactOptional(),
  hourly: count(0),
  daily: count(0),
  weekly: count(0),
  monthly: count(0),
  yearly: count(0),
});

/** POST /v1/cleanups */
export const startCleanup = defineRoute({
  method: "POST",
  path: "/v1/cleanups",
  summary: "Applies retention and gives space back; with `dryRun` only says what it would do",
  access: "admin",
  body: z.strictObject({
    dryRun: z.boolean().exactOptional(),
    sweep: z.boolean().exactOptional(),
    retention: retentionBody.exactOptional(),
    undoWindowMs: z.int().min(0).exactOptional(),
  }),
  answer: operationSchema,
  status: 202,
  run: ({ context, body }) =>
    context.start((node) => {
      const { retention, ...rest } = body;
      const configured = context.config().retention;
      return node.startCleanup({
        ...rest,
        ...(retention === undefined ? {} : { retention: { ...configured, ...retention } }),
      });
    }),
});

/** POST /v1/verifications */
export const startVerification = defineRoute({
  method: "POST",
  path: "/v1/verifications",
  summary:
    "Checks that all a backup needs is there; with `deep` reads and checks every byte, with " +
    "`database` asks the running database for what the backup holds",
  access: "read",
  body: z
    .strictObject({
      backup: z.string().min(1).max(200).exactOptional(),
      deep: z.boolean().default(false),
      database: z.boolean().exactOptional(),
    })
    .refine(({ deep, database }) => !(deep && database === true), {
      error: "`deep` and `database` are two verifications: ask for one",
    }),
  answer: operationSchema,
  status: 202,
  run: ({ context, body }) => context.start((node) => node.startVerify(body)),
});
