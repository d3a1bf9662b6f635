/**
 * From a site's settings to the store: opened, counted, held to its limits, and with trouble that
 * passes waited out.
 */
import type { Clock, Random } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { openAzureSite } from "../sites/azure-site.ts";
import { countRequests } from "../sites/counting-site.ts";
import type { CountingSite } from "../sites/counting-site.ts";
import { openDirectorySite } from "../sites/directory-site.ts";
import { openGcsSite } from "../sites/gcs-site.ts";
import type { GuardedSite } from "../sites/guarded-site.ts";
import { guardedSite } from "../sites/guarded-site.ts";
import { limitedSite } from "../sites/limited-site.ts";
import { retryingSite } from "../sites/retrying-site.ts";
import { openS3Site } from "../sites/s3-site.ts";
import type { Site } from "../sites/site.ts";
import type { AzureSiteConfig, GcsSiteConfig, S3SiteConfig, SiteConfig } from "./config.ts";

/** A site as operations use it, and the counters below its retries. */
export type OpenedSite = { readonly site: Site; readonly counters: CountingSite };

/**
 * Opens a site. Closing `site` closes all of it. A long-lived writer has a store prove at
 * once that it creates only where nothing is, so that no backup has to wait for that.
 */
export async function openSite(
  config: SiteConfig,
  doors: { readonly clock: Clock; readonly random: Random },
  how: { readonly proveNow?: boolean } = {},
): Promise<OpenedSite> {
  const { clock, random } = doors;
  const bare = await openStore(config, clock);
  const counters = countRequests(bare);
  // What is sent twice goes over the line twice, and waits for it twice.
  const limited =
    config.limits === undefined
      ? counters
      : limitedSite(counters, { clock, limits: config.limits });
  // A folder's links are made once; a store is not believed before it has shown that it does as much.
  if (config.type === "directory") {
    return { site: retryingSite(limited, { clock, random }), counters };
  }
  const guarded = guardedSite(limited, random);
  if (how.proveNow === true && config.role !== "archive") await proveIfReached(guarded);
  return { site: retryingSite(guarded, { clock, random }), counters };
}

async function proveIfReached(site: GuardedSite): Promise<void> {
  try {
    await site.prove();
  } catch (thrown) {
    // Who only reads need not know; who writes is told by the first put, which proves again.
    if (!(thrown instanceof AppError)) throw thrown;
  }
}

async function openStore(config: SiteConfig, clock: Clock): Promise<Site> {
  switch (config.type) {
    case "directory":
      return await openDirectorySite({ name: config.name, path: config.path, clock });
    case "s3":
      return await openBucket(config, clock);
    case "azure":
      return await openAzure(config);
    case "gcs":
      return await openGcs(config);
  }
}

async function openAzure(config: AzureSiteConfig): Promise<Site> {
  const { type: _, limits: __, prices: ___, role: ____, retention: _____, ...settings } = config;
  const { accountKey, connectionString, sasToken, ...rest } = settings;
  return await openAzureSite({
    ...rest,
    ...(accountKey === undefined ? {} : { accountKey: accountKey.reveal() }),
    ...(connectionString === undefined ? {} : { connectionString: connectionString.reveal() }),
    ...(sasToken === undefined ? {} : { sasToken: sasToken.reveal() }),
  });
}

async function openGcs(config: GcsSiteConfig): Promise<Site> {
  const { type: _, limits: __, prices: ___, role: ____, retention: _____, ...settings } = config;
  const { credentials, ...rest } = settings;
  const secret = credentials === undefined ? {} : { credentials: credentials.reveal() };
  return await openGcsSite({ ...rest, ...secret });
}

async function openBucket(config: S3SiteConfig, clock: Clock): Promise<Site> {
  const { type: _, limits: __, prices: ___, role: ____, retention: _____, ...settings } = config;
  const { accessKeyId, secretAccessKey, sessionToken, ...rest } = settings;
  return await openS3Site({
    ...rest,
    clock,
    ...(accessKeyId === undefined ? {} : { accessKeyId: accessKeyId.reveal() }),
    ...(secretAccessKey === undefined ? {} : { secretAccessKey: secretAccessKey.reveal() }),
    ...(sessionToken === undefined ? {} : { sessionToken: sessionToken.reveal() }),
  });
}
