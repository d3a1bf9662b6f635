/**
 * The real S3 servers of tests, of two makes, each with a directory of its own. Where one cannot be
 * had, a test is skipped by a name that says what is missing; in CI that is a failure.
 */
import { afterAll, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startMinio } from "../../scripts/real/minio.ts";
import { startS3Server } from "../../scripts/real/s3.ts";
import type { RealS3, S3ServerOptions } from "../../scripts/real/s3.ts";
import type { S3SiteOptions } from "../../src/sites/s3-options.ts";
import { openS3Site } from "../../src/sites/s3-site.ts";
import type { Site } from "../../src/sites/site.ts";

const MAKES = { versitygw: startS3Server, MinIO: startMinio } as const;

/** A make of S3 server. */
export type S3Make = keyof typeof MAKES;

/** Starts servers, which end with the tests of the file; those that run. */
export async function realServers(
  makes: readonly S3Make[] = ["versitygw", "MinIO"],
  options: Omit<S3ServerOptions, "directory"> = {},
): Promise<RealS3[]> {
  const directory = await mkdtemp(join(tmpdir(), "astacus-s3-"));
  const servers: RealS3[] = [];
  afterAll(async () => {
    for (const server of servers) await server.stop();
    await rm(directory, { recursive: true, force: true });
  });
  for (const make of makes) {
    const server = await MAKES[make]({ ...options, directory: join(directory, make) });
    if ("missing" in server) test.skip(`${make} [needs ${server.missing}]`, () => undefined);
    else servers.push(server);
  }
  return servers;
}

/** Opens a bucket of a real server as a site. */
export async function openReal(real: RealS3, options: Partial<S3SiteOptions> = {}): Promise<Site> {
  const { endpoint, bucket, accessKeyId, secretAccessKey, caFile } = real;
  const address = { endpoint, bucket, accessKeyId, secretAccessKey };
  const trust = caFile === undefined ? {} : { caFile };
  return await openS3Site({ name: "real", forcePathStyle: true, ...address, ...trust, ...options });
}
