/**
 * The `sites` section: one schema for each kind of object store. Sizes and durations come out as
 * bytes and milliseconds, secrets as `Secret`.
 */
import { z } from "zod";
import { durationField, pathField, secretField } from "../base/fields.ts";
import { siteRoleFields } from "./config-retention.ts";
import { siteCostFields } from "./config-site-costs.ts";

/** Names of sites, nodes and clusters: they appear in paths, URLs and metrics. */
export const NAME_PATTERN = /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}$/;

/** The pattern in words. */
export const NAME_EXPECTED = "1 to 64 letters, digits, dots, dashes and underscores";

/** A name. */
export function nameField() {
  return z.string().regex(NAME_PATTERN).meta({ expected: NAME_EXPECTED, kind: "name" });
}

const siteName = () =>
  nameField().meta({ description: "The site's name, in commands and messages." });

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
    prefix: z
      .string()
      .regex(/^[A-Za-z0-9._-]+(?:\/[A-Za-z0-9._-]+)*$/)
      .refine((prefix) => !prefix.split("/").some((part) => part === "." || part === ".."))
      .optional()
      .meta({
        expected: "letters, digits, dots, dashes, underscores, and single slashes between",
        description: "Put before every object's name, so that a bucket can hold other things too.",
      }),
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
    ...siteRoleFields(),
    ...siteCostFields(),
  })
  .meta({ title: "s3" });

/** One entry of `sites`. */
export const siteSchema = z.discriminatedUnion("type", [directorySiteSchema, s3SiteSchema]);

/** An HTTP or HTTPS address without a path. */
export function httpAddress() {
  return z
    .string()
    .refine((text) => getHttpOrigin(text) !== undefined)
    .meta({ expected: "http://host:port or https://host:port", kind: "address" });
}

/** `http://host:port` in its one normal form, default port left out; undefined if it is none. */
export function getHttpOrigin(text: string): string | undefined {
  if (!URL.canParse(text)) return undefined;
  const url = new URL(text);
  const isBare =
    url.pathname === "/" && url.search === "" && url.hash === "" && url.username === "";
  const isHttp = url.protocol === "http:" || url.protocol === "https:";
  return isHttp && isBare && url.password === "" ? url.origin : undefined;
}
