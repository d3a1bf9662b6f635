/**
 * The `sites` section: one schema for each kind of object store. Sizes and durations come out as
 * bytes and milliseconds, secrets as `Secret`.
 */
import { z } from "zod";
import { durationField, pathField, secretField } from "../base/fields.ts";
import { bucketFields } from "./config-bucket.ts";
import { azureSiteSchema, gcsSiteSchema } from "./config-cloud-sites.ts";
import { bucketPrefix, httpAddress, siteName } from "./config-names.ts";
import { siteRoleFields } from "./config-retention.ts";
import { siteCostFields } from "./config-site-costs.ts";

/** A folder as a site. */
export const directorySiteSchema = z
  .strictObject({
    name: siteName(),
    type: z
      .literal("directory")
      .meta({ description: "A folder, local or on a network file system." }),
    path: pathField().meta({
      description: "The folder. All nodes must see the same one at this path.",
    }),
    ...siteRoleFields(),
    ...siteCostFields(),
  })
  .meta({ title: "directory" });

/** A bucket as a site. */
export const s3SiteSchema = z
  .strictObject({
    name: siteName(),
    type: z
      .literal("s3")
      .meta({ description: "A bucket of S3, or of a store that speaks its protocol." }),
    bucket: z
      .string()
      .regex(/^[A-Za-z0-9._-]{3,255}$/)
      .meta({ expected: "the name of a bucket", description: "The bucket; it must exist." }),
    prefix: bucketPrefix(),
    region: z.string().min(1).optional().meta({
      expected: "the name of a region",
      description: "The bucket's region; us-east-1 if left out.",
    }),
    endpoint: httpAddress().optional().meta({
      description: "The store's address, where it is not AWS.",
    }),
    forcePathStyle: z
      .boolean()
      .optional()
      .meta({
        description:
          "Whether the bucket stands in the path and not in the host name. Most stores that are not " +
          "AWS need it; so it is true where an endpoint is given, else false.",
      }),
    accessKeyId: secretField().optional().meta({
      description: "The key's id. Without it, the usual places of AWS are asked for credentials.",
    }),
    secretAccessKey: secretField().optional().meta({ description: "The key." }),
    sessionToken: secretField().optional().meta({
      description: "The session's token, with keys that live for a short time.",
    }),
    caFile: pathField().optional().meta({
      description: "A PEM file of authorities to trust, besides those of the system.",
    }),
    proxy: httpAddress().optional().meta({ description: "An HTTP proxy on the way to the store." }),
    transport: z
      .enum(["node", "fetch"])
      .default("node")
      .meta({
        description:
          "How requests are sent: by the SDK's own handler over Node's HTTP client, or by the " +
          "runtime's `fetch`, which takes about half the CPU.",
      }),
    concurrency: z.int().min(1).max(256).default(8).meta({
      description: "How many requests a node has under way at the same time.",
    }),
    requestTimeout: durationField({ min: 1000, max: 3_600_000 }).prefault("60s").meta({
      description: "How long one request may take. An object has up to 64 MiB.",
    }),
    ...bucketFields(),
    ...siteRoleFields(),
    ...siteCostFields(),
  })
  .meta({ title: "s3" });

/** One entry of `sites`. */
export const siteSchema = z.discriminatedUnion("type", [
  directorySiteSchema,
  s3SiteSchema,
  azureSiteSchema,
  gcsSiteSchema,
]);
