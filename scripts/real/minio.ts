/**
 * A second real S3 server, of another make than s3.ts: MinIO, built once with the Go toolchain into the
 * cache. It is a tool of tests (its licence is the AGPL): nothing of it is linked or shipped. Beside
 * what versitygw does it has an STS that gives credentials for web identities.
 *
 *   bun scripts/real/minio.ts install
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { buildGoModule } from "./go-build.ts";
import type { Missing } from "./missing.ts";
import type { RealS3, S3ServerMake, S3ServerOptions } from "./s3.ts";
import { startServerOf } from "./s3.ts";

/** MinIO has releases by date; Go knows this one by its commit. */
export const MINIO_VERSION = "20260212201848-7aac2a2c5b7c";

const MINIO: S3ServerMake = {
  make: `MinIO ${MINIO_VERSION}`,
  install: installMinio,
  argv: (program, { directory, port, tls }) => [
    program,
    "server",
    join(directory, "root"),
    "--quiet",
    "--address",
    `127.0.0.1:${port}`,
    ...(tls === undefined ? [] : ["--certs-dir", certificatesFolder(directory, tls)]),
  ],
  environment: ({ accessKeyId, secretAccessKey, domain, directory }) => ({
    MINIO_ROOT_USER: accessKeyId,
    MINIO_ROOT_PASSWORD: secretAccessKey,
    MINIO_BROWSER: "off",
    // It refuses to share a disk with the system otherwise.
    MINIO_CI_CD: "1",
    // For SSE-S3 and SSE-KMS: a key that is none of anybody's.
    MINIO_KMS_SECRET_KEY: `astacus-test:${Buffer.alloc(32, 7).toString("base64")}`,
    ...(domain === undefined ? {} : { MINIO_DOMAIN: domain }),
    HOME: directory,
  }),
  healthPath: "/minio/health/ready",
};

/** The path of the program; the first time it is built, in 3 to 6 minutes on two cores. */
export async function installMinio(): Promise<string | Missing> {
  const folder = await buildGoModule({
    name: `minio-${MINIO_VERSION}`,
    folder: join(import.meta.dir, "minio"),
    programs: { minio: "github.com/minio/minio" },
    megabytes: 3072,
  });
  return typeof folder === "string" ? join(folder, "minio") : folder;
}

/** Starts MinIO with its buckets; says what is missing if it cannot. */
export async function startMinio(options: S3ServerOptions): Promise<RealS3 | Missing> {
  return await startServerOf(MINIO, options);
}

/** MinIO looks for files of these names. */
function certificatesFolder(
  directory: string,
  tls: { readonly certFile: string; readonly keyFile: string },
): string {
  const folder = join(directory, "minio-certificates");
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  fs.copyFileSync(tls.certFile, join(folder, "public.crt"));
  fs.copyFileSync(tls.keyFile, join(folder, "private.key"));
  return folder;
}

if (import.meta.main) {
  if (Bun.argv[2] === "install") {
    const program = await installMinio();
    console.log(typeof program === "string" ? program : `missing: ${program.missing}`);
    process.exitCode = typeof program === "string" ? 0 : 1;
  } else {
    console.error("usage: bun scripts/real/minio.ts install");
    process.exitCode = 2;
  }
}
