/**
 * Places for sites on this machine, by kind: a directory, two real S3 servers, Azure's emulator. Each
 * is started with a folder of its own, and described as a configuration names it.
 */
import { join } from "node:path";
import { startAzurite } from "./real/azurite.ts";
import { startMinio } from "./real/minio.ts";
import type { Missing } from "./real/missing.ts";
import { startS3Server } from "./real/s3.ts";
import type { SitePlace } from "./scenario-migration-run.ts";

/** A place that runs until it is stopped. */
export type OpenedPlace = SitePlace & { readonly stop: () => Promise<void> };

/** Makes a place of a kind (directory, s3, minio, azure) in a folder; says what it would need. */
export async function openPlace(wanted: {
  readonly kind: string;
  /** The site's, of letters and digits. */
  readonly name: string;
  readonly folder: string;
}): Promise<OpenedPlace | Missing> {
  const { kind, name, folder } = wanted;
  const directory = join(folder, `site-${name}`);
  if (kind === "directory") {
    const yaml = `{name: ${name}, type: directory, path: "${directory}"}`;
    return { name, kind, yaml, environment: {}, stop: async () => undefined };
  }
  if (kind === "azure") {
    const server = await startAzurite({ directory });
    if ("missing" in server) return server;
    const { endpoint, account, accountKey, container } = server;
    const key = `${name.toUpperCase()}_KEY`;
    const yaml =
      `{name: ${name}, type: azure, container: ${container}, account: ${account}, ` +
      `endpoint: "${endpoint}", accountKey: {env: ${key}}}`;
    return { name, kind, yaml, environment: { [key]: accountKey }, stop: () => server.stop() };
  }
  if (kind !== "s3" && kind !== "minio") throw new Error(`there is no kind of place ${kind}`);
  const server = await (kind === "s3" ? startS3Server : startMinio)({ directory });
  if ("missing" in server) return server;
  const { endpoint, bucket, accessKeyId, secretAccessKey } = server;
  const [id, key] = [`${name.toUpperCase()}_ID`, `${name.toUpperCase()}_KEY`];
  const yaml =
    `{name: ${name}, type: s3, bucket: ${bucket}, endpoint: "${endpoint}", ` +
    `accessKeyId: {env: ${id}}, secretAccessKey: {env: ${key}}}`;
  const environment = { [id]: accessKeyId, [key]: secretAccessKey };
  return { name, kind, yaml, environment, stop: () => server.stop() };
}
