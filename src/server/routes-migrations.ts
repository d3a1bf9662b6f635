/**
 * Routes of migrations: what one would do, and doing it.
 */
import { z } from "zod";
import { money, operationSchema } from "./answer-schemas.ts";
import { siteUsageSchema } from "../cluster/usage.ts";
import { defineRoute } from "./route.ts";

const siteName = z.string().min(1).max(64);
const count = z.number().min(0);

const migrationBody = z.strictObject({
  from: siteName,
  to: siteName,
  backups: z.array(z.string().min(1).max(200)).min(1).max(10_000).exactOptional(),
  since: z.iso.datetime({ offset: true }).exactOptional(),
  undo: z.boolean().exactOptional(),
  noSwitch: z.boolean().exactOptional(),
});

const migrationSite = z.strictObject({ id: z.string(), name: z.string(), location: z.string() });

/** What a migration would do. */
const migrationPlanSchema = z.looseObject({
  from: migrationSite,
  to: migrationSite,
  switches: z.boolean(),
  isSwitched: z.boolean(),
  toRole: z.enum(["primary", "mirror", "archive", "closed"]).optional(),
  isPartial: z.boolean(),
  backups: z.array(
    z.strictObject({
      id: z.string(),
      name: z.string(),
      state: z.enum(["copy", "there", "forgotten-there"]),
      packs: count,
      bytes: count,
    }),
  ),
  copies: count,
  present: count,
  packs: count,
  bytes: count,
  isWithinStore: z.boolean(),
  usage: z.array(siteUsageSchema),
  storagePerMonth: money.exactOptional(),
  timeMs: count.exactOptional(),
  locks: z
    .strictObject({
      mode: z.enum(["governance", "compliance"]),
      periodMs: count,
      until: z.string(),
      renewal: siteUsageSchema,
    })
    .exactOptional(),
  nodes: z.array(
    z.strictObject({ name: z.string(), helps: z.boolean(), why: z.string().exactOptional() }),
  ),
  refusals: z.array(z.string()),
});

/** POST /v1/migrations/plan */
export const planMigration = defineRoute({
  method: "POST",
  path: "/v1/migrations/plan",
  summary: "What a migration would do: backups, packs, bytes, requests, money; changes nothing",
  access: "read",
  body: migrationBody,
  answer: migrationPlanSchema,
  run: ({ context, body, signal, takeYourTime }) => {
    takeYourTime();
    return context.node().planMigration(body, signal);
  },
});

/** POST /v1/sites/:name/retire */
export const retireSite = defineRoute({
  method: "POST",
  path: "/v1/sites/:name/retire",
  summary:
    "Ends a site: all that it holds is proved elsewhere, or it is refused; with `lost` one that is " +
    "gone for good is left out",
  access: "admin",
  body: z.strictObject({ lost: z.boolean().exactOptional() }),
  answer: operationSchema,
  status: 202,
  run: ({ context, parameters, body }) =>
    context.start((node) =>
      node.startRetirement({ site: siteName.parse(parameters["name"]), ...body }),
    ),
});

/** POST /v1/migrations */
export const startMigration = defineRoute({
  method: "POST",
  path: "/v1/migrations",
  summary:
    "Starts a migration, or goes on with it; asks nothing, so look at the plan first. With `undo` " +
    "it goes back",
  access: "admin",
  body: migrationBody,
  answer: operationSchema,
  status: 202,
  run: ({ context, body }) => context.start((node) => node.startMigration(body)),
});
