/** Reading configuration files: what a good one means, and what is said about a bad one. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "node:util";
import fc from "fast-check";
import { Secret } from "../../src/base/secret.ts";
import { parseConfig, parseSharedConfig, type ConfigInput } from "../../src/server/config.ts";
import { ConfigProblems } from "../../src/server/config-problems.ts";

const TOKEN = "0123456789abcdef-";

const GOOD = `cluster: c
product: {type: files, root: /srv/data}
sites:
  - {name: disk, type: directory, path: /backup}
`;

const THREE = `${GOOD}tokens: {admin: ${TOKEN}}
nodes:
  - {name: a, address: "http://a.example:5515", zone: z1}
  - {name: b, address: "http://b.example:5515"}
  - {name: c, address: "http://c.example:5515"}
`;

function input(text: string, changes: Partial<ConfigInput> = {}): ConfigInput {
  return {
    text,
    fileName: "/etc/astacus.conf",
    environment: {},
    readFile: (path) => {
      throw new Error(`no ${path}`);
    },
    hostName: "a",
    ...changes,
  };
}

function problems(text: string, changes: Partial<ConfigInput> = {}): string[] {
  try {
    parseConfig(input(text, changes));
  } catch (thrown) {
    if (!(thrown instanceof ConfigProblems)) throw thrown;
    return thrown.message
      .split("\n")
      .slice(1)
      .map((line) => line.trim().replace(/^[^:]*:/, ""));
  }
  return [];
}

describe("a good file", () => {
  test("needs a cluster, a product and a site; the rest has defaults", () => {
    const config = parseConfig(input(GOOD));
    expect(config).toMatchObject({
      cluster: "c",
      sites: [{ name: "disk", type: "directory", path: "/backup" }],
      retention: { minimum: 3 },
      undoWindowMs: 7 * 86_400_000,
      backup: { packSizeBytes: 8 * 1024 ** 2, chunkSizeBytes: 256 * 1024, compressionLevel: 1 },
      restore: { owner: "recorded", concurrency: 4 },
      logLevel: "info",
    });
    expect(config.self).toEqual({
      name: "a",
      address: "http://127.0.0.1:5515",
      zone: undefined,
      listen: { host: "127.0.0.1", port: 5515, tls: undefined },
      data: "/var/lib/astacus",
      product: { type: "files", root: "/srv/data", volume: "root", unreadable: "incomplete" },
    });
  });

  test("may be JSON, with tabs", () => {
    const json = JSON.stringify(
      {
        cluster: "c",
        product: { type: "files", root: "/d" },
        sites: [{ name: "s", type: "directory", path: "/b" }],
      },
      null,
      "\t",
    );
    expect(parseConfig(input(json)).sites[0]?.name).toBe("s");
  });

  test("lets a node find itself: asked name, ASTACUS_NODE, host name, short host name", () => {
    const nameOf = (changes: Partial<ConfigInput>) => parseConfig(input(THREE, changes)).self.name;
    const environment = { ASTACUS_NODE: "b" };
    expect(nameOf({ nodeName: "c", environment })).toBe("c");
    expect(nameOf({ environment })).toBe("b");
    expect(nameOf({})).toBe("a");
    expect(nameOf({ hostName: "B.example.com" })).toBe("b");
  });

  test("gives each node its own address, folder and root", () => {
    const text = `${THREE.replace("zone: z1", "root: '/own/{node}', listen: {port: 99}")}data: /d/{node}\n`;
    const first = parseConfig(input(text)).self;
    expect(first).toMatchObject({ data: "/d/a", product: { root: "/own/a" } });
    expect(first.listen).toMatchObject({ host: "a.example", port: 99 });
    const second = parseConfig(input(text, { nodeName: "b" })).self;
    expect(second).toMatchObject({ data: "/d/b", product: { root: "/srv/data" } });
    expect(second.listen).toMatchObject({ host: "b.example", port: 5515 });
  });

  test("takes relative paths from the folder that it lies in", () => {
    const text = GOOD.replace("/srv/data", "data").replace("/backup", "../backup");
    const config = parseConfig(input(text));
    expect(config.self.product.root).toBe("/etc/data");
    expect(config.sites[0]).toMatchObject({ path: "/backup" });
  });

  test("gives paths of the data as bytes", () => {
    expect(parseConfig(input(GOOD.replace("/srv/data", "/srv/é"))).self.product.root).toBe(
      "/srv/\xc3\xa9",
    );
  });

  test("puts the primary site first", () => {
    const two = `${GOOD}  - {name: far, type: s3, bucket: bbb, endpoint: "http://h:9/"}\nprimary: far\n`;
    expect(parseConfig(input(two)).sites.map(({ name }) => name)).toEqual(["far", "disk"]);
    expect(parseConfig(input(two)).sites[0]).toEqual({
      type: "s3",
      name: "far",
      bucket: "bbb",
      region: "us-east-1",
      endpoint: "http://h:9",
      forcePathStyle: true,
      transport: "node",
      concurrency: 8,
      requestTimeoutMs: 60_000,
    });
  });

  test("may not have an unknown key, with a value or without", () => {
    const text = "cluster: c\nproduct: {type: files, root: /d}\nretntion:\nsites:\n";
    const site = "  - {name: s, type: directory, path: /b}\n";
    expect(problems(`${text}${site}retention:\n  keepLsat:\n  daily:\n`)).toEqual([
      '3:1 retntion: unknown key "retntion". Did you mean "retention"?',
      '7:3 retention.keepLsat: unknown key "keepLsat". Did you mean "keepLast"?',
    ]);
    expect(problems("encryption:\nclutser:\n")).toContain(
      '2:1 clutser: unknown key "clutser". Did you mean "cluster"?',
    );
  });

  test("may leave a section empty, or comment all of it out", () => {
    expect(parseConfig(input(`${GOOD}backup:\n  # workers: 4\nlog:\n`)).backup.workers).toBe(2);
  });

  test("takes secrets from text, environment and files, and never prints them", () => {
    const text = `${GOOD}tokens:
  admin: "admin-${TOKEN}"
  read: {env: READ}
  node: {file: node-token}
`;
    const config = parseConfig(
      input(text, {
        environment: { READ: `read-${TOKEN}` },
        readFile: (path) => (path === "/etc/node-token" ? `node-${TOKEN}\n` : ""),
      }),
    );
    const { admin, read, node } = config.tokens;
    expect([admin, read, node].map((each) => each?.reveal())).toEqual(
      ["admin", "read", "node"].map((role) => `${role}-${TOKEN}`),
    );
    const printed = `${admin?.toString()} ${JSON.stringify(config)} ${inspect(config, { depth: 9 })}`;
    expect(printed).not.toContain(TOKEN);
    expect(new Secret("x").toString()).toBe("***");
  });

  test("can be read without being a node, and without tokens, for a restore elsewhere", () => {
    const text = THREE.replace(`admin: ${TOKEN}`, "admin: {env: NOWHERE}");
    expect(problems(text, { hostName: "laptop" })).toHaveLength(2);
    const config = parseSharedConfig(input(text, { hostName: "laptop" }));
    expect(config.tokens).toEqual({ admin: undefined, read: undefined, node: undefined });
    expect(config.nodes).toHaveLength(3);
  });

  test.each(readdirSync("examples"))("example %s", (file) => {
    const text = readFileSync(join("examples", file), "utf8");
    const environment = new Proxy({}, { get: (_, name) => `${String(name)}-${TOKEN}` });
    const readFile = (path: string): string => `${path}-${TOKEN}`;
    const config = parseConfig(input(text, { nodeName: firstNodeOf(text), environment, readFile }));
    expect(config.sites.length).toBeGreaterThan(0);
  });
});

describe("a bad file", () => {
  test("is told about all its problems at once, in the order of lines", () => {
    const text = `clutser: c
product: {type: files, root: /srv}
sites:
  - {name: s, type: directory}
retention:
  keepLsat: 3
  daily: many
backup:
  packSize: 16M
  nodeTimeout: 30
`;
    expect(problems(text)).toEqual([
      "1:1 cluster: missing; expected 1 to 64 letters, digits, dots, dashes and underscores.",
      '1:1 clutser: unknown key "clutser". Did you mean "cluster"?',
      "4:5 sites[0].path: missing; expected a path.",
      '6:3 retention.keepLsat: unknown key "keepLsat". Did you mean "keepLast"?',
      '7:10 retention.daily: found "many"; expected a whole number from 0 to 36500.',
      '9:13 backup.packSize: found "16M"; expected a size such as 512KiB, 16MiB or 2GB ' +
        "(B, kB, MB, GB, TB, KiB … TiB), from 1MiB to 48MiB.",
      "10:16 backup.nodeTimeout: found 30; expected a duration such as 500ms, 30s, 12h, 7d or " +
        "1h30m, at least 1s.",
    ]);
  });

  test.each([
    ["", "1:1: the file is empty; expected at least `cluster`, `product` and `sites`."],
    [
      "# only this\n",
      "1:1: the file is empty; expected at least `cluster`, `product` and `sites`.",
    ],
    ["- a\n", "1:1: expected keys and values at the top of the file."],
    ["coordinator: {}\n", "1:1 coordinator: this looks like a file of the original Astacus. docs"],
  ])("that is no configuration at all: %j", (text, message) => {
    expect(problems(text)).toEqual([expect.stringContaining(message)]);
  });

  test("is told where its YAML breaks, and its text is not quoted", () => {
    for (const text of [
      `"${TOKEN}\nproduct: {}`,
      `{a: {b}} ${TOKEN}`,
      `"a" ${TOKEN}`,
      `*${TOKEN}`,
    ]) {
      const found = problems(`cluster: c\nsecret: ${text}\n`);
      expect(found).toEqual([expect.stringMatching(/^\d:\d+: (not valid YAML: .|an alias )/)]);
      expect(found.join("\n")).not.toContain(TOKEN);
    }
    expect(problems("cluster: c\ncluster: d\n")[0]).toStartWith("2:1: not valid YAML: map keys");
  });

  test("is told about names used twice", () => {
    const text = THREE.replace("name: b", "name: a").replace("c.example:5515", "a.example:5515/");
    expect(problems(text)).toEqual([
      '8:12 nodes[1].name: "a" is the name of nodes[0] already.',
      '9:24 nodes[2].address: "http://a.example:5515" is the address of nodes[0] already.',
    ]);
  });

  test("is told when this machine is none of its nodes", () => {
    expect(problems(THREE, { hostName: "x" })).toEqual([
      "6:1 nodes: this machine is called x; nodes are a, b, c. " +
        "Say which one it is with --node NAME or ASTACUS_NODE.",
    ]);
    expect(problems(THREE, { nodeName: "d" })).toEqual([
      '6:1 nodes: there is no node "d"; nodes are a, b, c. Did you mean "a"?',
    ]);
  });

  test("is told which secrets are not to be had", () => {
    const text = `${GOOD}tokens: {admin: {env: ADMIN}, read: {file: /none}, node: 12}\n`;
    expect(problems(text)).toEqual([
      "5:23 tokens.admin.env: the environment variable ADMIN is not set. " +
        "Set it where the server is started.",
      "5:44 tokens.read.file: the file /none cannot be read: no /none. It must exist, and the user " +
        "of the server must be allowed to read it.",
      "5:58 tokens.node: found a number; expected a secret: text, {env: NAME} or {file: PATH}.",
    ]);
  });

  test.each([
    ["tokens: {admin: short}", "at least 16 printable"],
    [`tokens: {admin: ${TOKEN}, read: ${TOKEN}}`, "the same token as `tokens.admin`"],
    ["listen: {host: 0.0.0.0}", "anybody who reaches 0.0.0.0 could delete backups"],
    ["primary: disc", 'there is no site "disc"; sites are disk. Did you mean "disk"?'],
    ["keepLast: 3", "retention.keepLast."],
    ["log: {level: warning}", "expected one of debug, info, warn, error"],
    ["nodes: []", "a list of 0; expected a list of 1 to 64 entries"],
    ["nodes: [{name: ..}]", 'found ".."; expected 1 to 64 letters'],
    ["nodes: [{name: a, address: http://a}]", "expected http://host:5515"],
    ["nodes: [{name: a, address: http://u:pw@a:1}]", 'found "http://***@a:1"'],
    ["nodes: [{name: a}, {name: b, address: 'http://b:1'}]", "nodes[0].address: missing"],
    [
      `tokens: {admin: ${TOKEN}}\nlisten: {tls: {certificate: c, key: k}}\nnodes: [{name: a, address: "http://h:1"}]`,
      "expected an address with https://",
    ],
  ])("with %s", (line, message) => {
    expect(problems(`${GOOD}${line}\n`).join("\n")).toContain(message);
  });

  test.each([
    ["{name: t, type: drectory, path: /x}", 'Did you mean "directory"?'],
    ["{name: t, type: s3, bucket: bbb, accessKeyId: k}", "secretAccessKey: missing;"],
    ["{name: disk, type: directory, path: /x}", "is the name of sites[0] already"],
    ["{name: t, type: directory, path: '/x/{node}'}", "all nodes must see the same folder"],
    ["{name: t, type: s3, bucket: bbb, prefix: /a}", 'found "/a"; expected letters, digits'],
    ["{type: s3, bucket: bbb, secretAccesKey: hunter2}", 'Did you mean "secretAccessKey"?'],
    ["text", 'found "text"; expected a section with a `type`'],
  ])("with the site %s", (site, message) => {
    const found = problems(`${GOOD}  - ${site}\n`).join("\n");
    expect(found).toContain(message);
    expect(found).not.toContain("hunter2");
  });

  test("makes nothing but problems with places in it, whatever stands there", () => {
    const anyFile = fc.oneof(
      fc.string(),
      fc.json(),
      fc
        .record(
          {
            cluster: fc.json(),
            nodes: fc.array(fc.object()),
            sites: fc.array(fc.object({ key: fc.constantFrom("name", "type", "path", "x") })),
            product: fc.object(),
            retention: fc.object({ key: fc.constantFrom("daily", "minimum", "__proto__") }),
          },
          { requiredKeys: [] },
        )
        .map((value) => JSON.stringify(value)),
    );
    fc.assert(
      fc.property(anyFile, (text) => {
        const lineCount = text.split(/\r\n|\n|\r/).length;
        const found = problems(text);
        expect(found.length).toBeGreaterThan(0);
        // A text with line breaks in a message would be more lines than problems.
        const lines = found.flatMap((problem) => /^(\d+):\d+[ :]/.exec(problem)?.[1] ?? []);
        expect(lines).toHaveLength(found.length);
        expect(lines.every((line) => Number(line) <= lineCount)).toBeTrue();
      }),
    );
  });
});

/** Examples with a list of nodes have a db1. */
function firstNodeOf(text: string): string {
  return /^nodes:\n\s+- \{?\s*name: ([\w-]+)/m.exec(text)?.[1] ?? "host";
}
