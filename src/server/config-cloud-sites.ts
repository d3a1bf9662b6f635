/**
 * Sites in clouds that do not speak S3: the schemas of `azure` and `gcs`, and what they become.
 */
import { z } from "zod";
import { durationField, pathField, secretField } from "../base/fields.ts";
import type { Secret } from "../base/secret.ts";
import type { AzureAccessTier } from "../sites/azure-site.ts";
import type { GcsStorageClass } from "../sites/gcs-site.ts";
import { bucketPrefix, getHttpOrigin, httpAddress, siteName } from "./config-names.ts";
import { siteRoleFields } from "./config-retention.ts";
import { siteCostFields } from "./config-site-costs.ts";

/** What is the same for both. */
type CloudSiteSettings = {
  readonly name: string;
  readonly prefix?: string;
  readonly endpoint?: string;
  readonly caFile?: string;
  readonly proxy?: string;
  readonly concurrency: number;
  readonly requestTimeoutMs: number;
};

/** A container of Azure Blob Storage. */
export type AzureSiteSettings = CloudSiteSettings & {
  readonly type: "azure";
  readonly container: string;
  readonly account?: string;
  readonly accountKey?: Secret;
  readonly connectionString?: Secret;
  readonly sasToken?: Secret;
  readonly identity?: "machine";
  readonly clientId?: string;
  readonly accessTier?: AzureAccessTier;
};

/** A bucket of Google Cloud Storage. */
export type GcsSiteSettings = CloudSiteSettings & {
  readonly type: "gcs";
  readonly bucket: string;
  readonly credentials?: Secret;
  readonly credentialsFile?: string;
  readonly anonymous: boolean;
  readonly storageClass?: GcsStorageClass;
};

/** A container of Azure Blob Storage as a site. */
export const azureSiteSchema = z
  .strictObject({
    name: siteName(),
    type: z.literal("azure").meta({ description: "A container of Azure Blob Storage." }),
    container: z
      .string()
      .regex(/^(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/)
      .meta({
        expected: "3 to 63 small letters, digits and single dashes",
        description: "The container; it must exist.",
      }),
    prefix: bucketPrefix(),
    account: z
      .string()
      .regex(/^[a-z0-9]{3,24}$/)
      .optional()
      .meta({
        expected: "3 to 24 small letters and digits",
        description: "The storage account.",
      }),
    endpoint: z
      .string()
      .refine((text) => getBlobEndpoint(text) !== undefined)
      .optional()
      .meta({
        expected: "https://host, or http://host:port/account",
        kind: "address",
        description:
          "The account's address, where it is not `https://<account>.blob.core.windows.net`. That of " +
          "an emulator ends with the account.",
      }),
    accountKey: secretField().optional().meta({ description: "The account's key." }),
    connectionString: secretField().optional().meta({
      description: "Account, address and key in one, in place of the three.",
    }),
    sasToken: secretField()
      .optional()
      .meta({
        description:
          "A shared access signature in place of the key, with the permissions to read, add, create, " +
          "write, delete and list.",
      }),
    identity: z
      .literal("machine")
      .optional()
      .meta({
        description:
          "In place of a key: the identity of the machine, app or pod, as the cloud assigned it. " +
          "Needs https.",
      }),
    clientId: z.string().min(1).optional().meta({
      expected: "the client id of an identity",
      description: "Which identity, where the machine has several.",
    }),
    accessTier: z.enum(["Hot", "Cool", "Cold"]).optional().meta({
      description: "Where new objects lie; the account's own default if left out.",
    }),
    ...networkFields(),
    ...siteRoleFields(),
    ...siteCostFields(),
  })
  .meta({ title: "azure" });

/** A bucket of Google Cloud Storage as a site. */
export const gcsSiteSchema = z
  .strictObject({
    name: siteName(),
    type: z.literal("gcs").meta({ description: "A bucket of Google Cloud Storage." }),
    bucket: z
      .string()
      .regex(/^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$/)
      .meta({ expected: "the name of a bucket", description: "The bucket; it must exist." }),
    prefix: bucketPrefix(),
    credentialsFile: pathField()
      .optional()
      .meta({
        description:
          "The JSON file of a service account's key or of a federated identity. Without it and " +
          "`credentials`, the usual places of Google are asked, the machine's role included.",
      }),
    credentials: secretField().optional().meta({ description: "The text of such a file." }),
    anonymous: z.boolean().default(false).meta({
      description: "Whether no credentials are sent, as emulators like it.",
    }),
    endpoint: httpAddress().optional().meta({
      description: "The service's address, where it is not https://storage.googleapis.com.",
    }),
    storageClass: z.enum(["STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"]).optional().meta({
      description: "The class of new objects; the bucket's own default if left out.",
    }),
    ...networkFields(),
    ...siteRoleFields(),
    ...siteCostFields(),
  })
  .meta({ title: "gcs" });

/** The address of an account, without a slash at its end; undefined if it is none. */
export function getBlobEndpoint(text: string): string | undefined {
  if (!URL.canParse(text)) return undefined;
  const { origin, pathname } = new URL(text);
  if (!/^\/[a-z0-9]*\/?$/.test(pathname)) return undefined;
  const path = pathname.replace(/\/$/, "");
  const isBare = text.replace(/\/$/, "").endsWith(path) && getHttpOrigin(origin) !== undefined;
  return isBare && !/[?#@]/.test(text) ? `${origin}${path}` : undefined;
}

function networkFields() {
  return {
    caFile: pathField().optional().meta({
      description: "A PEM file of authorities to trust, in place of those of the system.",
    }),
    proxy: httpAddress().optional().meta({ description: "An HTTP proxy on the way to the store." }),
    concurrency: z.int().min(1).max(256).default(8).meta({
      description: "How many requests a node has under way at the same time.",
    }),
    requestTimeout: durationField({ min: 1000, max: 3_600_000 }).prefault("60s").meta({
      description: "How long one request may take. An object has up to 64 MiB.",
    }),
  };
}
