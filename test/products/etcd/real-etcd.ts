/**
 * A real etcd for the tests of this folder and of M3's cluster state: one server for a test file, and
 * clients of our own through the real doors.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEtcd } from "../../../scripts/real/etcd.ts";
import type { EtcdOptions, RealEtcd } from "../../../scripts/real/etcd.ts";
import { realClock } from "../../../src/base/clock.ts";
import { AppError } from "../../../src/base/error.ts";
import { realFileSystem } from "../../../src/base/file-system.ts";
import { realOutside } from "../../../src/base/outside.ts";
import { realRandom } from "../../../src/base/random.ts";
import { openEtcd } from "../../../src/products/etcd/etcd-client.ts";
import type { EtcdAccess, EtcdClient, EtcdDoors } from "../../../src/products/etcd/etcd-client.ts";
import { encodeText, showKey } from "../../../src/products/etcd/etcd-messages.ts";

/** The doors of this machine. */
export const REAL_ETCD_DOORS: EtcdDoors = {
  clock: realClock,
  random: realRandom,
  files: realFileSystem,
  outside: realOutside,
};

/** A server with a folder of its own. */
export type TestEtcd = AsyncDisposable & {
  readonly etcd: RealEtcd;
  readonly directory: string;
  readonly client: EtcdClient;
};

/** Starts one; what is missing if there is no etcd. */
export async function openTestEtcd(
  options: Omit<EtcdOptions, "directory"> = {},
): Promise<TestEtcd | { readonly missing: string }> {
  const directory = mkdtempSync(join(tmpdir(), "astacus-etcd-"));
  const etcd = await startEtcd({ ...options, directory });
  if ("missing" in etcd) {
    rmSync(directory, { recursive: true });
    return etcd;
  }
  const client = openEtcd({ endpoints: [etcd.endpoint], ...tlsOf(etcd) }, REAL_ETCD_DOORS);
  return {
    etcd,
    directory,
    client,
    [Symbol.asyncDispose]: async () => {
      await etcd.kill();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** What a client of a server with TLS needs. */
export function tlsOf(etcd: RealEtcd): Pick<EtcdAccess, "tls"> {
  if (etcd.tls === undefined) return {};
  const { caFile: ca, certFile: certificate, keyFile: key } = etcd.tls;
  return { tls: { ca, certificate, key } };
}

/** Writes texts. */
export async function putAll(
  client: EtcdClient,
  values: Readonly<Record<string, string | Uint8Array>>,
): Promise<void> {
  for (const [key, value] of Object.entries(values)) {
    const bytes = typeof value === "string" ? encodeText(value) : value;
    await client.transact({ writes: [{ put: encodeText(key), value: bytes }] });
  }
}

/** Everything below a prefix, as text. */
export async function readTexts(
  client: EtcdClient,
  prefix: string,
): Promise<Record<string, string>> {
  const { entries } = await client.readPrefix(encodeText(prefix));
  return Object.fromEntries(
    entries.map(({ key, value }) => [showKey(key), Buffer.from(value).toString()]),
  );
}

/** The error that a call ends with. */
export async function errorOf(promise: Promise<unknown>): Promise<AppError> {
  try {
    await promise;
  } catch (thrown) {
    if (thrown instanceof AppError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}
