/**
 * Routes of sites: which there are, bringing mirrors up to date, and a mirror that takes the primary's
 * place.
 */
import { z } from "zod";
import { operationSchema, siteStatusSchema } from "./answer-schemas.ts";
import { nameField } from "./config-names.ts";
import { defineRoute } from "./route.ts";

/** GET /v1/sites */
export const listSites = defineRoute({
  method: "GET",
  path: "/v1/sites",
  summary: "The sites: what each is, whether it answers, and what mirrors lack",
  access: "read",
  answer: z.strictObject({ sites: z.array(siteStatusSchema) }),
  run: async ({ context, signal }) => ({ sites: await context.node().listSites(signal) }),
});

/** POST /v1/sync */
export const startSync = defineRoute({
  method: "POST",
  path: "/v1/sync",
  summary: "Brings mirrors what they lack, and the primary what landed elsewhere",
  access: "admin",
  body: z.strictObject({ sites: z.array(nameField()).min(1).max(100).exactOptional() }),
  answer: operationSchema,
  status: 202,
  run: ({ context, body }) => context.start((node) => node.startSync(body)),
});

/** POST /v1/sites/:site/promote */
export const startPromote = defineRoute({
  method: "POST",
  path: "/v1/sites/:site/promote",
  summary: "Makes a mirror the primary, and names every backup that it lacks",
  access: "admin",
  body: z.strictObject({}),
  answer: operationSchema,
  status: 202,
  run: ({ context, parameters }) =>
    context.start((node) => node.startPromote({ site: parameters["site"] ?? "" })),
});

/** POST /v1/sites/update */
export const updateSites = defineRoute({
  method: "POST",
  path: "/v1/sites/update",
  summary: "Enters the retention of sites, as the configuration has it now, into the repository",
  access: "admin",
  body: z.strictObject({}),
  answer: operationSchema,
  status: 202,
  run: ({ context }) => context.start((node) => node.startUpdateSites()),
});
