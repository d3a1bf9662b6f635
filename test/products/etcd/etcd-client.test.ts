/**
 * The client against a real etcd: reads at one revision, transactions, fail-over, and that each
 * trouble of the world (no user, a wrong certificate, a lost majority) is told with what to do.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { callEtcd } from "../../../scripts/real/etcd.ts";
import type { RealEtcd } from "../../../scripts/real/etcd.ts";
import type { Outside } from "../../../src/base/doors.ts";
import { AppError } from "../../../src/base/error.ts";
import { realFileSystem } from "../../../src/base/file-system.ts";
import { realOutside } from "../../../src/base/outside.ts";
import { Secret } from "../../../src/base/secret.ts";
import { openEtcd } from "../../../src/products/etcd/etcd-client.ts";
import type { EtcdAccess } from "../../../src/products/etcd/etcd-client.ts";
import { describeRefusal } from "../../../src/products/etcd/etcd-failure.ts";
import {
  encodeBytes,
  encodeText,
  endOfPrefix,
  parsePrefix,
  showKey,
} from "../../../src/products/etcd/etcd-messages.ts";
import { saveSnapshot } from "../../../src/products/etcd/etcd-snapshot.ts";
import { errorOf, openTestEtcd, putAll, REAL_ETCD_DOORS, tlsOf } from "./real-etcd.ts";
import type { TestEtcd } from "./real-etcd.ts";

const ROOT = { name: "root", password: new Secret("root-secret") };
const READER = { name: "reader", password: new Secret("reader-secret") };
/** Nothing listens on it. */
const NOBODY = "http://127.0.0.1:1";

const plain = await openTestEtcd();
const ready = "missing" in plain ? undefined : plain;
const secured =
  ready && (await openTestEtcd({ users: { root: "root-secret", reader: "reader-secret" } }));
const encrypted = ready && (await openTestEtcd({ tls: true }));
const older = ready && (await openTestEtcd({ version: "path" }));
afterAll(async () => {
  for (const each of [plain, secured, encrypted, older]) {
    if (each !== undefined && !("missing" in each)) await each[Symbol.asyncDispose]();
  }
});

describe("prefixes", () => {
  test("must end in a slash, so that prod never takes prod2", () => {
    expect(() => parsePrefix("prod")).toThrow("does not end in a slash");
    expect(() => parsePrefix("")).toThrow("does not end in a slash");
    expect(showKey(endOfPrefix(parsePrefix("prod/")))).toBe("prod0");
  });

  test("of bytes end where the last byte can grow no more", () => {
    expect([...endOfPrefix(new Uint8Array([1, 255, 255]))]).toEqual([2]);
    expect([...endOfPrefix(new Uint8Array([255]))]).toEqual([0]);
  });
});

if (ready === undefined) {
  const why = "missing" in plain ? plain.missing : "";
  test.skip(`the client of etcd [needs ${why}]`, () => undefined);
} else {
  contract("a real etcd", ready);
  if (older !== undefined && !("missing" in older)) contract("the etcd on PATH", older);
  outages(ready);
  if (secured !== undefined && !("missing" in secured)) authentication(secured);
  if (encrypted !== undefined && !("missing" in encrypted)) encryption(encrypted, ready);
  else test.skip("TLS to etcd [needs openssl]", () => undefined);
}

function contract(name: string, { etcd, client, directory }: TestEtcd): void {
  describe(name, () => {
    test("keeps keys and values of any bytes, empty ones too", async () => {
      const key = new Uint8Array([0x62, 0, 255, 10]);
      await client.transact({ writes: [{ put: key, value: new Uint8Array() }] });
      const entry = await client.get(key);
      expect(entry).toMatchObject({ key, version: 1n, lease: 0n });
      expect(entry?.value.length).toBe(0);
      const all = new Uint8Array(Array.from({ length: 256 }, (_, byte) => byte));
      await client.transact({ writes: [{ put: key, value: all }] });
      expect((await client.get(key))?.value).toEqual(all);
      expect(await client.get(encodeText("not-there"))).toBeUndefined();
      expect((await client.readPrefix(encodeText("not-there/"))).entries).toEqual([]);
    });

    test("reads a large prefix whole, sorted, at one revision", async () => {
      const keys = Array.from(
        { length: 1_203 },
        (_, index) => `many/${String(index).padStart(5, "0")}`,
      );
      for (let start = 0; start < keys.length; start += 100) {
        const writes = keys.slice(start, start + 100).map((key) => {
          return { put: encodeText(key), value: encodeText("before") };
        });
        await client.transact({ writes });
      }
      await putAll(client, { many0: "beyond", "many2/x": "beyond" });
      const seen: string[] = [];
      const values = new Set<string>();
      for await (const page of client.listPages(parsePrefix("many/"), { pageCount: 100 })) {
        seen.push(...page.entries.map((entry) => showKey(entry.key)));
        for (const { value } of page.entries) values.add(Buffer.from(value).toString());
        // What is written meanwhile belongs to a later revision.
        await putAll(client, { "many/01202": "after", "many/00000x": "after" });
      }
      expect(seen).toEqual(keys);
      expect([...values]).toEqual(["before"]);
    });

    test("tells a lease", async () => {
      const { ID } = await callEtcd(etcd, "/v3/lease/grant", { TTL: "60" });
      const key = encodeBytes(encodeText("leased"));
      await callEtcd(etcd, "/v3/kv/put", { key, lease: ID });
      expect((await client.get(encodeText("leased")))?.lease).toBe(BigInt(String(ID)));
    });

    test("writes all or nothing, as revisions, versions and values say", async () => {
      const key = encodeText("txn/key");
      const write = (compare: object, value: string) =>
        client.transact({
          compare: [{ key, ...compare } as { key: Uint8Array; modRevision: bigint }],
          writes: [{ put: key, value: encodeText(value) }],
        });
      expect((await write({ modRevision: 0n }, "1")).succeeded).toBe(true);
      expect((await write({ modRevision: 0n }, "2")).succeeded).toBe(false);
      const { modRevision } = (await client.get(key))!;
      expect((await write({ modRevision }, "3")).succeeded).toBe(true);
      expect((await write({ version: 1n }, "4")).succeeded).toBe(false);
      expect((await write({ value: encodeText("3") }, "5")).succeeded).toBe(true);
      expect(Buffer.from((await client.get(key))!.value).toString()).toBe("5");
      await client.transact({ writes: [{ delete: key }] });
      expect(await client.get(key)).toBeUndefined();
    });

    test("tells a compacted revision, and begins again where none was asked for", async () => {
      await putAll(client, { "compact/a": "1", "compact/b": "2" });
      const { revision } = await client.readPrefix(encodeText("compact/"));
      await putAll(client, { "compact/a": "3" });
      const now = (await client.readPrefix(encodeText("compact/"))).revision;
      await callEtcd(etcd, "/v3/kv/compaction", { revision: now.toString() });
      const error = await errorOf(client.readPrefix(encodeText("compact/"), { revision }));
      expect(error).toMatchObject({ kind: "conflict", retryable: true });
      expect((await client.readPrefix(encodeText("compact/"))).entries.length).toBe(2);

      // A compaction between two pages of the same read.
      const doors = { ...REAL_ETCD_DOORS, outside: compactingAfterFirstPage(etcd) };
      const disturbed = openEtcd({ endpoints: [etcd.endpoint] }, doors);
      const range = await disturbed.readPrefix(encodeText("many/"));
      expect(range.entries.length).toBe(1_204);
      expect(range.revision).toBeGreaterThan(now);
    });

    test("tells status and members", async () => {
      const status = await client.status();
      expect(status.version).toMatch(/^3\.\d+\.\d+/);
      expect(status.leader).toBe(status.memberId);
      expect(status.databaseSizeBytes).toBeGreaterThan(0);
      const members = await client.members();
      expect(members.map(({ id, clientUrls }) => [id, clientUrls])).toEqual([
        [status.memberId, [etcd.endpoint]],
      ]);
    });

    test("refuses what is larger than etcd takes, with its flag", async () => {
      const value = new Uint8Array(2_000_000);
      const large = await errorOf(client.transact({ writes: [{ put: encodeText("x"), value }] }));
      expect(large).toMatchObject({ kind: "refused", retryable: false });
      expect(large.guidance).toContain("--max-request-bytes");
      const writes = Array.from({ length: 129 }, (_, index) => {
        return { put: encodeText(`ops/${index}`), value: new Uint8Array() };
      });
      expect((await errorOf(client.transact({ writes }))).guidance).toContain("--max-txn-ops");
    });

    test("saves a snapshot that etcd's own checksum proves", async () => {
      const path = join(directory, "snapshot.db");
      const options = { files: realFileSystem, path, timeoutMs: 60_000 };
      const saved = await saveSnapshot(client, options);
      const bytes = readFileSync(path);
      expect(bytes.length).toBe(saved.sizeBytes);
      const checksum = new Bun.CryptoHasher("sha256").update(bytes.subarray(0, -32)).digest("hex");
      expect([checksum, bytes.subarray(-32).toString("hex")]).toEqual([saved.sha256, saved.sha256]);
      rmSync(path);
    });

    test("refuses a snapshot in which one byte is wrong, or that ends early", async () => {
      for (const spoil of [flipped, shortened]) {
        const doors = { ...REAL_ETCD_DOORS, outside: spoiling(spoil) };
        const path = join(directory, `spoiled-${spoil.name}.db`);
        const options = { files: realFileSystem, path, timeoutMs: 60_000 };
        const spoiled = openEtcd({ endpoints: [etcd.endpoint] }, doors);
        expect(await errorOf(saveSnapshot(spoiled, options))).toMatchObject({ kind: "damaged" });
        rmSync(path);
      }
    });
  });
}

function outages({ etcd, directory }: TestEtcd): void {
  const get = async (access: Partial<EtcdAccess>, signal?: AbortSignal): Promise<unknown> => {
    const client = openEtcd({ endpoints: [etcd.endpoint], ...access }, quickDoors());
    return await client.get(encodeText("x"), signal === undefined ? {} : { signal });
  };

  describe("an etcd in trouble", () => {
    test("is asked at its other endpoints", async () => {
      await get({ endpoints: [NOBODY, etcd.endpoint] });
      await get({ endpoints: [etcd.endpoint, NOBODY] });
    });

    test("that is down is told with every endpoint", async () => {
      const error = await errorOf(get({ endpoints: [NOBODY, "http://127.0.0.1:2"] }));
      expect(error).toMatchObject({ kind: "unavailable", retryable: true });
      expect(error.message).toContain("http://127.0.0.1:1 is not listened on");
      expect(error.message).toContain("http://127.0.0.1:2 is not listened on");
      expect(error.guidance).toContain("endpoints");
    });

    test("that lacks a majority is told so", async () => {
      const alone = await startWithoutQuorum(directory, etcd);
      try {
        // With more patience, etcd itself says that it has no leader.
        const path = "/v3/kv/range";
        const saying = fetch(alone.endpoint + path, { method: "POST", body: '{"key":"eA=="}' });
        const access = { endpoints: [alone.endpoint], requestTimeoutMs: 500 };
        const error = await errorOf(get(access));
        expect(error).toMatchObject({ kind: "timeout" });
        expect(error.message).toStartWith("etcd runs, and does not serve requests in time.");
        expect(error.guidance).toContain("More than half of etcd's members");
        const said = await saying;
        const patient = describeRefusal(alone.endpoint, said.status, await said.text());
        expect(patient).toMatchObject({ kind: "unavailable", retryable: true });
        expect(patient.guidance).toContain("More than half of etcd's members");
      } finally {
        await alone.stop();
      }
    }, 120_000);

    test("that is none is told so", async () => {
      const server = Bun.serve({ port: 0, fetch: () => new Response("<html>") });
      try {
        const endpoint = `http://127.0.0.1:${server.port}`;
        const error = await errorOf(get({ endpoints: [endpoint] }));
        expect(error).toMatchObject({ kind: "refused", retryable: false });
        expect(error.message).toContain("did not answer as etcd does");
      } finally {
        await server.stop(true);
      }
    });

    test("is no longer asked when the caller gives up", async () => {
      const controller = new AbortController();
      controller.abort(new AppError("cancelled", "enough"));
      const access = { endpoints: [NOBODY] };
      expect(await errorOf(get(access, controller.signal))).toMatchObject({ kind: "cancelled" });
      const later = new AbortController();
      const server = Bun.serve({
        port: 0,
        fetch: async () => {
          later.abort(new AppError("cancelled", "enough"));
          return await new Promise<Response>(() => undefined);
        },
      });
      try {
        const endpoints = [`http://127.0.0.1:${server.port}`];
        expect(await errorOf(get({ endpoints }, later.signal))).toMatchObject({
          kind: "cancelled",
        });
      } finally {
        await server.stop(true);
      }
    });

    test("is refused without an endpoint", () => {
      expect(() => openEtcd({ endpoints: [] }, REAL_ETCD_DOORS)).toThrow("no endpoint");
    });
  });
}

function authentication({ etcd }: TestEtcd): void {
  const as = (user?: EtcdAccess["user"], outside: Outside = realOutside) =>
    openEtcd(
      { endpoints: [etcd.endpoint], ...(user && { user }) },
      { ...REAL_ETCD_DOORS, outside },
    );

  describe("an etcd with users", () => {
    test("serves one who knows the password", async () => {
      await putAll(as(ROOT), { "auth/a": "1" });
      expect((await as(READER).readPrefix(encodeText("auth/"))).entries.length).toBe(1);
    });

    test("says what is missing without a user, and what is wrong with one", async () => {
      const none = await errorOf(as().get(encodeText("auth/a")));
      expect(none).toMatchObject({ kind: "permission", retryable: false });
      expect(none.guidance).toContain("Give `user`");
      for (const user of [
        { ...ROOT, password: new Secret("sesame") },
        { ...ROOT, name: "nobody" },
      ]) {
        const error = await errorOf(as(user).get(encodeText("auth/a")));
        expect(error).toMatchObject({ kind: "permission", retryable: false });
        expect(error.message).toContain("does not know the user, or the password is wrong");
        expect(`${JSON.stringify(error)} ${Bun.inspect(error)}`).not.toContain("sesame");
      }
    });

    test("says which right is missing", async () => {
      const { token } = await callEtcd(etcd, "/v3/auth/authenticate", {
        name: "root",
        password: "root-secret",
      });
      const admin = async (path: string, body: object): Promise<void> => {
        await fetch(etcd.endpoint + path, {
          method: "POST",
          headers: { authorization: String(token) },
          body: JSON.stringify(body),
        });
      };
      await admin("/v3/auth/user/add", { name: "nothing", password: "nothing-secret" });
      const user = { name: "nothing", password: new Secret("nothing-secret") };
      const denied = await errorOf(as(user).get(encodeText("auth/a")));
      expect(denied).toMatchObject({ kind: "permission" });
      expect(denied.guidance).toContain("grant-permission");
      const options = { files: realFileSystem, path: "/dev/shm/never", timeoutMs: 5_000 };
      if (existsSync("/dev/shm")) {
        const snapshot = await errorOf(saveSnapshot(as(user), options));
        rmSync("/dev/shm/never", { force: true });
        expect(snapshot).toMatchObject({ kind: "permission" });
      }
    });

    test("gets a new token when it takes the old one no more", async () => {
      let authenticationCount = 0;
      const outside: Outside = {
        ...realOutside,
        fetch: async (url, init) => {
          if (url.endsWith("/v3/auth/authenticate")) authenticationCount += 1;
          const isStale = authenticationCount === 1 && url.endsWith("/v3/kv/range");
          const headers = isStale ? { authorization: "stale.1" } : init.headers;
          return await realOutside.fetch(url, { ...init, ...(headers && { headers }) });
        },
      };
      const client = as(READER, outside);
      expect((await client.get(encodeText("auth/a")))?.version).toBe(1n);
      await client.get(encodeText("auth/a"));
      expect(authenticationCount).toBe(2);
    });

    test("serves a user also where authentication is off", async () => {
      const client = openEtcd({ endpoints: [ready!.etcd.endpoint], user: ROOT }, REAL_ETCD_DOORS);
      expect(await client.get(encodeText("auth/none"))).toBeUndefined();
    });
  });
}

function encryption({ etcd, directory }: TestEtcd, { etcd: open }: TestEtcd): void {
  const tls = tlsOf(etcd).tls!;
  const get = async (endpoint: string, files?: EtcdAccess["tls"]): Promise<unknown> => {
    const access = { endpoints: [endpoint], ...(files && { tls: files }) };
    return await openEtcd(access, quickDoors()).get(encodeText("x"));
  };
  const junk = join(directory, "junk.pem");
  writeFileSync(junk, "no certificate");

  describe("an etcd with TLS", () => {
    test("serves one who shows its certificate", async () => {
      expect(await get(etcd.endpoint, tls)).toBeUndefined();
    });

    test("is told apart from every other trouble, with what to do", async () => {
      const told = async (endpoint: string, files: EtcdAccess["tls"], words: string) => {
        const error = await errorOf(get(endpoint, files));
        expect(`${error.kind}: ${error.message} ${error.guidance}`).toContain(words);
      };
      const plainText = etcd.endpoint.replace("https:", "http:");
      await told(etcd.endpoint, undefined, "Name the authority that signed etcd's certificate");
      await told(etcd.endpoint, { ca: tls.ca }, "give `tls.certificate` and `tls.key`");
      await told(plainText, undefined, "https:// in `endpoints` if it does");
      await told(open.endpoint.replace("http:", "https:"), tls, "else http://");
      await told(etcd.endpoint, { ...tls, ca: junk }, "junk.pem holds no certificate");
      await told(etcd.endpoint, { ...tls, key: junk }, "junk.pem holds no private key");
      await told(etcd.endpoint, { ...tls, ca: `${junk}.x` }, "junk.pem.x");
      const otherKey = tls.key?.replace("client.key", "server.key");
      await told(etcd.endpoint, { ...tls, key: otherKey }, "is not that of the certificate");
    });
  });
}

/** The one that is left of a cluster of two. */
async function startWithoutQuorum(
  directory: string,
  etcd: RealEtcd,
): Promise<{ readonly endpoint: string; stop(): Promise<void> }> {
  const [program = "etcd"] = readFileSync(`/proc/${etcd.process.pid}/cmdline`, "utf8").split("\0");
  const members = ["left", "gone"].map((name) => {
    return {
      name,
      endpoint: `http://127.0.0.1:${freePort()}`,
      peer: `http://127.0.0.1:${freePort()}`,
    };
  });
  const cluster = members.map(({ name, peer }) => `${name}=${peer}`).join(",");
  const children = members.map(({ name, endpoint, peer }) =>
    Bun.spawn(
      [
        program,
        `--name=${name}`,
        `--data-dir=${join(directory, name)}`,
        `--listen-client-urls=${endpoint}`,
        `--advertise-client-urls=${endpoint}`,
        `--listen-peer-urls=${peer}`,
        `--initial-advertise-peer-urls=${peer}`,
        `--initial-cluster=${cluster}`,
        "--heartbeat-interval=20",
        "--election-timeout=200",
        "--unsafe-no-fsync",
      ],
      { stdout: "ignore", stderr: "ignore" },
    ),
  );
  const [left, gone] = children;
  const endpoint = members[0]?.endpoint ?? "";
  const deadline = performance.now() + 60_000;
  while (!(await isHealthy(endpoint))) {
    if (performance.now() > deadline) throw new Error("the cluster of two does not start");
    await Bun.sleep(20);
  }
  gone?.kill("SIGKILL");
  await gone?.exited;
  return {
    endpoint,
    stop: async () => {
      left?.kill("SIGKILL");
      await left?.exited;
    },
  };
}

function freePort(): number {
  const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
  const { port } = probe;
  probe.stop(true);
  return port;
}

async function isHealthy(endpoint: string): Promise<boolean> {
  try {
    return (await fetch(`${endpoint}/health`)).ok;
  } catch {
    return false;
  }
}

/** The real doors, without the waits between tries. */
function quickDoors() {
  const clock = { ...REAL_ETCD_DOORS.clock, sleep: async () => undefined };
  return { ...REAL_ETCD_DOORS, clock };
}

function compactingAfterFirstPage(etcd: RealEtcd): Outside {
  let isDone = false;
  return {
    ...realOutside,
    fetch: async (url, init) => {
      const response = await realOutside.fetch(url, init);
      if (isDone) return response;
      isDone = true;
      const key = encodeBytes(encodeText("compact/c"));
      const { header } = await callEtcd(etcd, "/v3/kv/put", { key });
      const { revision } = header as { revision: string };
      await callEtcd(etcd, "/v3/kv/compaction", { revision });
      return response;
    },
  };
}

function spoiling(spoil: (text: string) => string): Outside {
  return {
    ...realOutside,
    fetch: async (url, init) => {
      const response = await realOutside.fetch(url, init);
      return new Response(spoil(await response.text()), { status: response.status });
    },
  };
}

/** One byte in the middle of the first part of the database. */
function flipped(text: string): string {
  const [first = "", ...rest] = text.split("\n");
  const at = Math.floor(first.length / 2);
  const other = first[at] === "A" ? "B" : "A";
  return [first.slice(0, at) + other + first.slice(at + 1), ...rest].join("\n");
}

function shortened(text: string): string {
  return text.trimEnd().split("\n").slice(0, -1).join("\n");
}
