/** Files of the original Astacus: what becomes of them, and that nothing is dropped in silence. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { parseConfig } from "../../src/server/config.ts";
import { convertConfig } from "../../src/server/convert-config.ts";
import { GONE_KEYS } from "../../src/server/convert-config-gone.ts";

const FILES = `
coordinator:
  plugin: files
  plugin_config: {root_globs: ["**/*.db"]}
  nodes:
    - {url: "http://db1:5515/node", az: a}
    - {url: "http://db2:5515/node", az: b}
  retention: {keep_days: 10, minimum_backups: 2, maximum_backups: 20}
  backup_attempts: 4
  poll: {duration: 100}
node:
  root: /srv/data
  db_path: /var/astacus.db
  copy_root_owner: true
  parallel: {hashes: 3, uploads: 5, downloads: 2}
uvicorn: {port: 5515, log_level: critical, http: httptools}
statsd: {port: 1}
object_storage:
  temporary_directory: /tmp/astacus
  default_storage: cloud
  compression: {algorithm: zstd}
  storages:
    disk: {storage_type: local, directory: /backup/, prefix: p}
    cloud:
      storage_type: s3
      bucket_name: bucket
      host: s3.example
      port: 9000
      is_secure: true
      addressing_style: path
      aws_access_key_id: AKIA
      aws_secret_access_key: hunter2hunter2
      read_timeout: 30
      segment_size: 5
`;

function parse(text: string) {
  const environment = new Proxy({}, { get: (_, name) => `${String(name)}-0123456789` });
  const readFile = (): string => "";
  return parseConfig({
    text,
    fileName: "x",
    nodeName: "db1",
    environment,
    readFile,
    hostName: "h",
  });
}

describe("a file of the original", () => {
  test("with the files plugin becomes one that we read, with the same meaning", () => {
    const config = parse(convertConfig(FILES, { clusterName: "c" }).text);
    expect(config).toMatchObject({
      cluster: "c",
      nodes: [
        { name: "db1", address: "http://db1:5515", zone: "a" },
        { name: "db2", address: "http://db2:5515", zone: "b" },
      ],
      self: { product: { root: "/srv/data", include: ["**/*.db"] } },
      retention: { keepDays: 10, minimum: 2, maximum: 20 },
      backup: { attempts: 4, workers: 3 },
      restore: { owner: "parent", concurrency: 2 },
      logLevel: "error",
    });
    expect(config.sites).toMatchObject([
      {
        name: "cloud",
        bucket: "bucket",
        prefix: "repository",
        endpoint: "https://s3.example:9000",
        forcePathStyle: true,
        requestTimeoutMs: 30_000,
      },
      { name: "disk", path: "/backup/p/repository" },
    ]);
  });

  test("loses nothing without a word", () => {
    const notes = convertConfig(FILES).notes.join("\n");
    for (const key of [
      "coordinator.poll",
      "node.db_path",
      "node.parallel.uploads",
      "uvicorn.http",
      "statsd",
      "object_storage.temporary_directory",
      "object_storage.compression",
      "object_storage.storages.cloud.segment_size",
    ]) {
      expect(notes).toContain(`\`${key}\` is gone: `);
    }
    expect(notes).not.toContain("has no equal");
  });

  test("does not hand its secrets on", () => {
    const { text } = convertConfig(FILES);
    expect(text).not.toMatch(/AKIA|hunter2/);
    expect(text).toContain("ASTACUS_CLOUD_SECRET_ACCESS_KEY");
  });

  test("keeps the defaults of the original's retention", () => {
    expect(convertConfig("coordinator: {plugin: files}\nnode: {root: /d}\n").text).toContain(
      "retention:\n  keepDays: 7\n  minimum: 3\n",
    );
  });

  test("tells nodes of one host apart", () => {
    const nodes = "[{url: 'http://h:1/node'}, {url: 'http://h:2/node'}]";
    const { text } = convertConfig(`coordinator: {plugin: files, nodes: ${nodes}}`);
    expect(text).toContain("- name: h-1\n    address: http://h:1\n");
    expect(text).toContain("- name: h-2\n    address: http://h:2\n");
  });

  test("may have dots in the names of its storages", () => {
    const storage = "{'a.b': {storage_type: local, directory: /d}}";
    const { text } = convertConfig(
      `coordinator: {plugin: files}\nobject_storage: {default_storage: a.b, storages: ${storage}}`,
    );
    expect(text).toContain("- name: a.b\n    type: directory\n    path: /d/repository\n");
    expect(text).toContain("primary: a.b\n");
  });

  test("keeps storages in Google's and Microsoft's clouds, and none of their keys", () => {
    const { text, notes } = convertConfig(`
coordinator: {plugin: files}
object_storage:
  default_storage: g
  storages:
    g: {storage_type: google, project_id: p, bucket_name: bucket, credential_file: /k.json}
    h: {storage_type: google, project_id: p, bucket_name: bucket, credentials: {private_key: hunter2}}
    z: {storage_type: azure, account_name: acc, account_key: hunter2, bucket_name: box, prefix: x}
`);
    expect(text).toContain(
      "- name: g\n    type: gcs\n    bucket: bucket\n    prefix: repository\n",
    );
    expect(text).toContain("credentialsFile: /k.json\n");
    expect(text).toContain("credentials:\n      env: ASTACUS_H_CREDENTIALS\n");
    expect(text).toContain(
      "type: azure\n    container: box\n    prefix: x/repository\n    account: acc\n",
    );
    expect(text).toContain("accountKey:\n      env: ASTACUS_Z_ACCOUNT_KEY\n");
    expect(text).not.toContain("hunter2");
    expect(notes.join()).not.toContain("is gone");
    parse(text);
  });

  test("with the m3db plugin keeps environment and etcd", () => {
    const plugin = "{etcd_url: 'http://etcd:2379/v3beta', environment: e, placement_nodes: [{}]}";
    const { text, notes } = convertConfig(
      `coordinator: {plugin: m3db, plugin_config: ${plugin}}\nnode: {root: /m3}`,
    );
    expect(text).toContain("type: m3\n  root: /m3\n  environment: e\n");
    expect(text).toContain("- http://etcd:2379\n");
    expect(notes.join()).toContain("`coordinator.plugin_config.placement_nodes` is gone");
  });

  test("with the cassandra plugin keeps commands and clients, but not the password", () => {
    const { text } = convertConfig(`
coordinator:
  plugin: cassandra
  plugin_config: {client: {username: u, password: hunter2, hostnames: [h]}}
node:
  root: /var/lib/cassandra
  cassandra: {access_level: write, nodetool_command: [nodetool, -h, h], start_command: [go]}
`);
    expect(text).toContain("type: cassandra");
    expect(text).toContain("readOnly: false");
    expect(text).toContain("env: ASTACUS_CASSANDRA_PASSWORD");
    expect(text).not.toContain("hunter2");
  });

  test("with another plugin says so", () => {
    expect(convertConfig("coordinator: {plugin: flink}").notes.join()).toContain('"flink"');
  });

  test.each([["a: ["], [""], ["cluster: c\n"]])("that is none is refused: %j", (text) => {
    expect(() => convertConfig(text)).toThrow();
  });
});

test("docs/from-the-original.md has every key that is gone", () => {
  const page = readFileSync("docs/from-the-original.md", "utf8");
  // The page leaves `coordinator.plugin_config.` and `object_storage.storages.*.` out.
  const keys = Object.keys(GONE_KEYS).map((key) =>
    key.replace(/^(coordinator\.plugin_config|object_storage\.storages\.\*)\./, ""),
  );
  expect(keys.filter((key) => !page.includes(`\`${key}\``))).toEqual([]);
});
