/**
 * The product for plain etcd: real servers of Astacus, a real etcd, the command line. What was backed
 * up comes back, a snapshot can be started by etcd's own tool, and nothing beside the prefixes moves.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { callEtcd, installEtcd } from "../../../scripts/real/etcd.ts";
import { realDatabases } from "../../../src/base/databases.ts";
import { AppError } from "../../../src/base/error.ts";
import { realFileSystem } from "../../../src/base/file-system.ts";
import { Secret } from "../../../src/base/secret.ts";
import { TRANSACTION_SIZE_BYTES_MAX } from "../../../src/products/etcd/etcd-client.ts";
import { disjointRanges, dumpKeys, readDump } from "../../../src/products/etcd/etcd-dump.ts";
import { loadKeys } from "../../../src/products/etcd/etcd-load.ts";
import { encodeBytes, encodeText } from "../../../src/products/etcd/etcd-messages.ts";
import { createEtcdProduct } from "../../../src/products/etcd/etcd.ts";
import type { PhaseContext } from "../../../src/products/product.ts";
import { ProcessCluster } from "../../process/process-cluster.ts";
import { errorOf, openTestEtcd, REAL_ETCD_DOORS, putAll, readTexts, tlsOf } from "./real-etcd.ts";
import type { TestEtcd } from "./real-etcd.ts";

const TIMEOUT_MS = 120_000;
const program = await installEtcd();

if (typeof program === "string") againstRealEtcd();
else test.skip(`plain etcd [needs ${program.missing}]`, () => undefined);

describe("ranges of prefixes", () => {
  test("are sorted, and none lies in another", () => {
    expect(disjointRanges(["b", "a/b/", "a/", "a/x", "b", "b/"])).toEqual(["a/", "b", "b/"]);
    expect(disjointRanges(["prod", "prod2", "prod/"])).toEqual(["prod", "prod/", "prod2"]);
  });

  test("never hold a byte string twice, whatever they are", () => {
    const part = fc.array(fc.constantFrom("a", "b", "/"), { minLength: 1, maxLength: 5 });
    const prefix = part.map((letters) => letters.join(""));
    fc.assert(
      fc.property(fc.array(prefix, { maxLength: 6 }), prefix, (prefixes, key) => {
        const holds = (range: string) =>
          range.endsWith("/") ? key.startsWith(range) : key === range;
        const wanted = prefixes.some(holds) ? 1 : 0;
        expect(disjointRanges(prefixes).filter(holds).length).toBe(wanted);
      }),
    );
  });
});

function againstRealEtcd(): void {
  describe("keys of prefixes", () => {
    test(
      "come back as they were, keys of any bytes and large values too",
      async () => {
        await using etcd = await startedEtcd();
        const { client, directory } = etcd;
        const odd = new Uint8Array([...encodeText("a/"), 255, 0, 10]);
        await client.transact({ writes: [{ put: odd, value: new Uint8Array([0, 255]) }] });
        const large = "x".repeat(TRANSACTION_SIZE_BYTES_MAX - 1_000);
        const many = Array.from({ length: 400 }, (_, index) => [
          `a/many/${1000 + index}`,
          `${index}`,
        ]);
        await putAll(client, {
          "a/large": large,
          "a/empty": "",
          ...Object.fromEntries(many),
          b: "b",
        });
        await putAll(client, { "a2/x": "not ours", bb: "not ours" });
        const before = await readTexts(client, "a/");
        const ranges = disjointRanges(["a/", "b"]);
        const path = join(directory, "keys.ndjson");
        const dump = await dumpKeys(client, { files: realFileSystem, path, ranges });
        expect(dump).toMatchObject({ keyCount: 404, leasedCount: 0 });
        expect(dump.sizeBytes).toBe(statSync(path).size);

        const options = { files: realFileSystem, path, ranges, extra: "refuse" as const };
        const gone = { delete: encodeText("a/"), rangeEnd: encodeText("a0") };
        await client.transact({ writes: [gone, { put: encodeText("b"), value: encodeText("c") }] });
        const first = { written: 404, deleted: 0, unchanged: 0, extraKept: 0 };
        expect(await loadKeys(client, options)).toEqual(first);
        expect(await readTexts(client, "a/")).toEqual(before);
        expect(await readTexts(client, "b")).toEqual({ b: "b", bb: "not ours" });
        expect(await readTexts(client, "a2/")).toEqual({ "a2/x": "not ours" });
        const { revision } = await client.readKey(odd);
        expect(await loadKeys(client, options)).toEqual({ ...first, written: 0, unchanged: 404 });
        expect((await client.readKey(odd)).revision).toBe(revision);
      },
      TIMEOUT_MS,
    );

    test(
      "have the same bytes in each dump, and keys with a lease are left out and left alone",
      async () => {
        await using etcd = await startedEtcd();
        const { client, directory } = etcd;
        await putAll(client, { "a/1": "1", "a/2": "2" });
        const { ID: lease } = await callEtcd(etcd.etcd, "/v3/lease/grant", { TTL: "600" });
        const key = encodeBytes(encodeText("a/leased"));
        await callEtcd(etcd.etcd, "/v3/kv/put", { key, lease });
        const ranges = ["a/"];
        const paths = ["one", "two"].map((name) => join(directory, name));
        for (const path of paths) {
          const dump = await dumpKeys(client, { files: realFileSystem, path, ranges });
          expect(dump).toMatchObject({ keyCount: 2, leasedCount: 1 });
          await putAll(client, { "a/2": "2", other: "moves the revision" });
        }
        const [one = "", two = ""] = paths;
        expect(readFileSync(one).equals(readFileSync(two))).toBe(true);
        await loadKeys(client, { files: realFileSystem, path: one, ranges, extra: "delete" });
        expect(Object.keys(await readTexts(client, "a/"))).toEqual(["a/1", "a/2", "a/leased"]);
      },
      TIMEOUT_MS,
    );

    test(
      "that the backup does not have are refused, deleted or kept, as configured",
      async () => {
        await using etcd = await startedEtcd();
        const { client, directory } = etcd;
        await putAll(client, { "a/1": "1" });
        const ranges = ["a/"];
        const path = join(directory, "keys");
        await dumpKeys(client, { files: realFileSystem, path, ranges });
        await putAll(client, { "a/1": "changed", "a/new": "x" });
        const options = { files: realFileSystem, path, ranges };
        const refused = await errorOf(loadKeys(client, { ...options, extra: "refuse" }));
        expect(refused).toMatchObject({ kind: "refused" });
        expect(refused.message).toContain("a/new");
        expect(await readTexts(client, "a/")).toEqual({ "a/1": "changed", "a/new": "x" });
        const kept = await loadKeys(client, { ...options, extra: "keep" });
        expect(kept).toMatchObject({ written: 1, extraKept: 1 });
        expect(await readTexts(client, "a/")).toEqual({ "a/1": "1", "a/new": "x" });
        const deleted = await loadKeys(client, { ...options, extra: "delete" });
        expect(deleted).toMatchObject({ deleted: 1, unchanged: 1 });
        expect(await readTexts(client, "a/")).toEqual({ "a/1": "1" });
      },
      TIMEOUT_MS,
    );

    test(
      "of a damaged dump are refused at each kind of damage",
      async () => {
        await using etcd = await startedEtcd();
        const { client, directory } = etcd;
        await putAll(client, { "a/1": "1", "a/2": "2" });
        const path = join(directory, "keys");
        await dumpKeys(client, { files: realFileSystem, path, ranges: ["a/"] });
        const lines = readFileSync(path, "utf8").trimEnd().split("\n");
        const damages: Record<string, string[]> = {
          "its last line is cut": [],
          "says not how many": lines.slice(0, -1),
          "says 2 how many": [lines[0]!, lines[1]!, lines[3]!],
          unsorted: [lines[0]!, lines[2]!, lines[1]!, lines[3]!],
          "beyond its prefixes": [lines[0]!, '{"key":"b","value":""}', '{"count":1}'],
          "no JSON": [lines[0]!, "{"],
          "first line": lines.slice(1),
          "follows its end": [...lines, lines[3]!],
        };
        for (const [words, damaged] of Object.entries(damages)) {
          const text = damaged.length === 0 ? lines.join("\n") : `${damaged.join("\n")}\n`;
          writeFileSync(path, text);
          const reading = () => [...readDump(realFileSystem, path, ["a/"])];
          expect(reading).toThrow(AppError);
          expect(reading).toThrow(words);
        }
      },
      TIMEOUT_MS,
    );
  });

  describe("the check of the configuration", () => {
    test(
      "says what etcd answers, and what is wrong",
      async () => {
        await using etcd = await startedEtcd({ users: { root: "root-secret" } });
        const check = async (root: string, password: string, prefixes?: string[]) => {
          const user = { name: "root", password: new Secret(password) };
          const connection = { endpoints: [etcd.etcd.endpoint], requestTimeoutMs: 5_000, user };
          const product = createEtcdProduct({
            type: "etcd",
            root,
            etcd: { ...connection, tls: undefined },
            prefixes,
            extra: "refuse",
            snapshotTimeout: 1_000,
          });
          const checks = await product.check(phaseContext());
          return checks.map(({ what, ok, message }) => `${what}: ${ok} ${message}`);
        };
        const { directory } = etcd;
        const good = await check(directory, "root-secret", ["a/", "b"]);
        expect(good[0]).toBe(`folder ${directory}: true can be written`);
        expect(good[1]).toMatch(/^etcd: true answers: version 3\.\d+\.\d+, 1 member$/);
        const bad = await check(join(directory, "nowhere"), "sesame", ["a/"]);
        expect(bad[0]).toContain("false");
        expect(bad[1]).toContain("the password is wrong");
      },
      TIMEOUT_MS,
    );
  });

  describe("a cluster of two nodes and an etcd", () => {
    test(
      "backs up prefixes and writes them back",
      async () => {
        await using etcd = await startedEtcd({ tls: true });
        await putAll(etcd.client, { "app/1": "one", "app/2": "two", "app2/1": "other" });
        const { ca, certificate, key } = tlsOf(etcd.etcd).tls ?? {};
        const tls = `{ca: "${ca}", certificate: "${certificate}", key: "${key}"}`;
        await using cluster = await startedCluster(etcd, `prefixes: [app/], etcd: {tls: ${tls}, `);
        const backup = await cluster.at("a", "backup", "--name", "first", "--json");
        expect(backup).toMatchObject({ code: 0 });
        expect(JSON.parse(backup.stdout)).toMatchObject({
          result: { complete: true },
        });

        await putAll(etcd.client, { "app/2": "changed", "app2/1": "newer" });
        await etcd.client.transact({ writes: [{ delete: encodeText("app/1") }] });
        const restore = await cluster.at("b", "restore", "--yes", "--json");
        expect(restore).toMatchObject({ code: 0 });
        expect(await readTexts(etcd.client, "app")).toEqual({
          "app/1": "one",
          "app/2": "two",
          "app2/1": "newer",
        });

        await putAll(etcd.client, { "app/3": "three" });
        const refused = await cluster.at("a", "restore", "--yes");
        expect(refused.code).not.toBe(0);
        expect(refused.stderr).toContain("etcd holds keys that the backup does not: app/3");
      },
      TIMEOUT_MS,
    );

    test(
      "puts a snapshot in its place, from which etcd starts again",
      async () => {
        await using etcd = await startedEtcd();
        await putAll(etcd.client, { "k/1": "one", "k/2": "two" });
        await using cluster = await startedCluster(etcd, "etcd: {");
        const backup = await cluster.at("a", "backup", "--name", "first", "--json");
        expect(backup).toMatchObject({ code: 0 });
        const restore = await cluster.at("a", "restore", "--yes");
        expect(restore).toMatchObject({ code: 0 });
        const file = join(cluster.root("a"), "snapshot.db");
        expect(restore.stdout + restore.stderr).toContain(`etcdutl snapshot restore ${file}`);
        expect(restore.stderr).toContain(`is at ${file} on node a.`);
        expect(existsSync(join(cluster.root("b"), "snapshot.db"))).toBe(false);
        expect(statSync(file).mode & 0o777).toBe(0o600);
        expect(existsSync(join(cluster.root("a"), ".astacus", "etcd"))).toBe(false);

        // Debian has it with etcd; a machine without it has proved the checksum already.
        const tool = Bun.which("etcdctl");
        if (tool === null) return;
        const data = join(cluster.folder, "again");
        mkdirSync(data);
        const restored = Bun.spawnSync(
          [tool, "snapshot", "restore", file, `--data-dir=${data}/data`],
          {
            env: { ...process.env, ETCDCTL_API: "3" },
          },
        );
        expect(restored.exitCode).toBe(0);
        expect(existsSync(join(data, "data/member/snap/db"))).toBe(true);
      },
      TIMEOUT_MS,
    );

    test(
      "says what is wrong when etcd is down",
      async () => {
        const etcd = await startedEtcd();
        await using cluster = await startedCluster(etcd, "etcd: {");
        await etcd[Symbol.asyncDispose]();
        const backup = await cluster.at("a", "backup");
        expect(backup.code).not.toBe(0);
        expect(backup.stderr).toContain("is not listened on");
      },
      TIMEOUT_MS,
    );
  });
}

function phaseContext(): PhaseContext {
  return {
    doors: {
      ...REAL_ETCD_DOORS,
      databases: realDatabases,
      network: { call: async () => undefined },
    },
    operation: "0".repeat(32),
    signal: new AbortController().signal,
    say: () => undefined,
  };
}

async function startedEtcd(options: Parameters<typeof openTestEtcd>[0] = {}): Promise<TestEtcd> {
  const etcd = await openTestEtcd(options);
  if ("missing" in etcd) throw new Error(`missing: ${etcd.missing}`);
  return etcd;
}

/** `settings` ends within the section `etcd`. */
async function startedCluster(etcd: TestEtcd, settings: string): Promise<ProcessCluster> {
  const cluster = await ProcessCluster.create({ nodes: ["a", "b"], more: "backup: {attempts: 1}" });
  const text = readFileSync(cluster.config, "utf8").replace(
    "product: {type: files,",
    `product: {type: etcd, ${settings}endpoints: ["${etcd.etcd.endpoint}"]},`,
  );
  writeFileSync(cluster.config, text);
  await cluster.init();
  await cluster.start("a", "b");
  return cluster;
}
