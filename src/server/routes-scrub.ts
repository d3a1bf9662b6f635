/**
 * Routes about damage: reading all packs of sites now, and verifying with repair. Both cost what a
 * site takes for reading, and the latter writes: so they are not for who may only read.
 */
import { z } from "zod";
import { operationSchema } from "./answer-schemas.ts";
import { defineRoute } from "./route.ts";

const siteName = z.string().min(1).max(200);

/** POST /v1/scrubs */
export const startScrub = defineRoute({
  method: "POST",
  path: "/v1/scrubs",
  summary:
    "Reads every pack of the sites (all that answer, unless named) once, whatever the budget of " +
    "`scrub` says, and repairs what it can",
  access: "admin",
  body: z.strictObject({ sites: z.array(siteName).min(1).max(100).exactOptional() }),
  answer: operationSchema,
  status: 202,
  run: ({ context, body }) => context.start((node) => node.startScrub(body)),
});

/** POST /v1/repairs */
export const startRepair = defineRoute({
  method: "POST",
  path: "/v1/repairs",
  summary: "A verification that repairs what it finds damaged from the other sites",
  access: "admin",
  body: z.strictObject({
    backup: z.string().min(1).max(200).exactOptional(),
    deep: z.boolean().default(false),
    site: siteName.exactOptional(),
  }),
  answer: operationSchema,
  status: 202,
  run: ({ context, body }) => context.start((node) => node.startVerify({ ...body, repair: true })),
});
