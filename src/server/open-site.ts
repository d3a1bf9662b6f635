/**
 * From a site's settings to the store: opened, counted, held to its limits, and with trouble that
 * passes waited out.
 */
import type { Clock, Random } from "../base/doors.ts";
import { countRequests } from "../sites/counting-site.ts";
import type { CountingSite } from "../sites/counting-site.ts";
import { openDirectorySite } from "../sites/directory-site.ts";
import { limitedSite } from "../sites/limited-site.ts";
import { retryingSite } from "../sites/retrying-site.ts";
import { openS3Site } from "../sites/s3-site.ts";
import type { Site } from "../sites/site.ts";
import type { S3SiteConfig, SiteConfig } from "./config.ts";

/** A site as operations use it, and the counters below its retries. */
export type OpenedSite = { readonly site: Site; readonly counters: CountingSite };

/** Opens a site. Closing `site` closes all of it. */
export async function openSite(
  config: SiteConfig,
  doors: { readonly clock: Clock; readonly random: Random },
): Promise<OpenedSite> {
  const { clock, random } = doors;
  const bare =
    config.type === "directory"
      ? await openDirectorySite({ name: config.name, path: config.path, clock })
      : await openBucket(config);
  const counters = countRequests(bare);
  // What is sent twice goes over the line twice, and waits for it twice.
  const limited =
    config.limits === undefined
      ? counters
      : limitedSite(counters, { clock, limits: config.limits });
  return { site: retryingSite(limited, { clock, random }), counters };
}

async function openBucket(config: S3SiteConfig): Promise<Site> {
  const { type: _, limits: __, prices: ___, role: ____, retention: _____, ...settings } = config;
  const { accessKeyId, secretAccessKey, sessionToken, ...rest } = settings;
  return await openS3Site({
    ...rest,
    ...(accessKeyId === undefined ? {} : { accessKeyId: accessKeyId.reveal() }),
    ...(secretAccessKey === undefined ? {} : { secretAccessKey: secretAccessKey.reveal() }),
    ...(sessionToken === undefined ? {} : { sessionToken: sessionToken.reveal() }),
  });
}
