/**
 * An answer that was read elsewhere because the primary does not answer says so, wherever it is read:
 * over HTTP, in OpenAPI, by the command line with a server and without one.
 */
import { describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { realClock } from "../../src/base/clock.ts";
import { commitRoles } from "../../src/cas/copy/roles.ts";
import { runCli } from "../../src/cli/main.ts";
import * as schemas from "../../src/server/answer-schemas.ts";
import { listen } from "../../src/server/listen.ts";
import { createApp } from "../../src/server/app.ts";
import { renderOpenApi } from "../../src/server/openapi.ts";
import { ROUTES } from "../../src/server/routes.ts";
import { openDirectorySite } from "../../src/sites/directory-site.ts";
import { idOf } from "../cas/log-builder.ts";
import { noise } from "../cas/noise.ts";
import { RepositoryBuilder } from "../cas/repository-builder.ts";
import { temporaryFolder } from "../cas/temporary-folder.ts";
import { createTestServer } from "./fake-node.ts";

const NOTICE =
  "The primary main does not answer: its disk is away – gone. This is what the mirror spare has.";

const archive = {
  backup: { id: "ab".repeat(16), name: "nightly", complete: true },
  entryCount: 1,
  contentBytes: 1,
  bytes: async function* () {
    yield new Uint8Array(10);
  },
};

function captured() {
  const [out, err] = [[] as string[], [] as string[]];
  const terminal = {
    print: (text: string) => void out.push(text),
    say: (text: string) => void err.push(text),
    isLive: false,
    canAsk: false,
    ask: () => Promise.resolve(false),
  };
  return { terminal, out, err };
}

describe("over HTTP", () => {
  test("a backup, a plan and an archive carry the notice of the list, and none without one", async () => {
    const { fake, ask } = createTestServer();
    fake.archive = async () => archive;
    const asked = async () => {
      const list = schemas.backupsSchema.parse(await (await ask("GET", "/v1/backups")).json());
      const one = await (await ask("GET", "/v1/backups/nightly")).json();
      const plan = await (await ask("POST", "/v1/restores/plan", { body: {} })).json();
      const { headers } = await ask("GET", "/v1/backups/nightly/archive");
      const header = headers.get("astacus-notice");
      return [
        list.notice,
        schemas.backupDetailSchema.parse(one).notice,
        schemas.restorePlanSchema.parse(plan).notice,
        header === null ? undefined : decodeURIComponent(header),
      ];
    };
    expect(await asked()).toEqual([undefined, undefined, undefined, undefined]);
    fake.notice = NOTICE;
    expect(await asked()).toEqual([NOTICE, NOTICE, NOTICE, NOTICE]);
  });

  test("the list carries warnings", async () => {
    const { fake, ask } = createTestServer();
    fake.warnings = ["The locks of 3 packs at site disk end on 2026-12-24: run `astacus cleanup`."];
    const list = schemas.backupsSchema.parse(await (await ask("GET", "/v1/backups")).json());
    expect(list.warnings).toEqual(fake.warnings);
  });

  test("the header of an archive is documented", () => {
    const { paths } = renderOpenApi(ROUTES, "0") as { paths: Record<string, { get: unknown }> };
    expect(paths["/v1/backups/{backup}/archive"]?.get).toMatchObject({
      responses: { "200": { headers: { "astacus-notice": { schema: { type: "string" } } } } },
    });
  });
});

test("commands say it on stderr and in their JSON", async () => {
  const { fake, context } = createTestServer();
  fake.archive = async () => archive;
  fake.notice = NOTICE;
  using folder = temporaryFolder();
  const app = createApp(context);
  const at = { host: "127.0.0.1", port: 0, tls: undefined };
  const listener = listen(at, (request, bindings) => app.fetch(request, bindings));
  try {
    const output = join(folder.path, "x.zip");
    for (const line of [
      ["list"],
      ["show", "nightly"],
      ["export", "nightly", "--output", output],
      ["restore", "--plan"],
    ]) {
      const { terminal, out, err } = captured();
      expect(await runCli([...line, "--json", "-u", listener.url], terminal)).toBe(0);
      expect([line[0], (JSON.parse(out.join("")) as { notice?: string }).notice]).toEqual([
        line[0],
        NOTICE,
      ]);
      expect(err.filter((text) => text.includes(NOTICE))).toHaveLength(1);
    }
  } finally {
    await listener.stop(true);
  }
});

test("without a server they say it too, and nothing when the primary is read", async () => {
  using folder = temporaryFolder();
  const place = (name: string): string => join(folder.path, name);
  fs.mkdirSync(place("spare"));
  await using site = await openDirectorySite({
    name: "spare",
    path: place("spare"),
    clock: realClock,
  });
  using builder = await RepositoryBuilder.create({ site });
  await builder.backup("nightly", { a: { data: [{ path: "x", content: noise(1000, 1) }] } });
  const rows = (primary: "main" | "spare") =>
    [
      { site: idOf("main"), name: "main", location: "file:/main" },
      { site: builder.repository.header.site, name: "spare", location: site.location },
    ].map((row) => ({ ...row, role: row.name === primary ? "primary" : "mirror" }) as const);
  const enter = async (epoch: number, primary: "main" | "spare") => {
    const sites = rows(primary);
    const body = {
      epoch,
      sites,
      primary: sites.find(({ role }) => role === "primary")!.site,
      reason: "",
    };
    await commitRoles(builder.repository, body, { operation: idOf(`roles ${epoch}`) });
  };
  await enter(1, "main");
  const config = place("astacus.conf");
  fs.writeFileSync(
    config,
    JSON.stringify({
      cluster: "test",
      nodes: [{ name: "a", address: "http://127.0.0.1:5515" }],
      data: place("data"),
      product: { type: "files", root: place("root") },
      sites: ["main", "spare"].map((name) => ({ name, type: "directory", path: place(name) })),
    }),
  );
  const lines = (target: string) => [
    ["list"],
    ["show", "nightly"],
    ["export", "nightly", "--output", `${target}.zip`],
    ["restore", "--backup", "nightly", "--plan", "--to", target],
  ];
  const wanted = "This is what the mirror spare has.";
  for (const line of lines(place("first"))) {
    const { terminal, out, err } = captured();
    expect(await runCli([...line, "--json", "-c", config], terminal)).toBe(0);
    const { notice = "" } = JSON.parse(out.join("")) as { notice?: string };
    expect(notice).toStartWith("The primary main does not answer: ");
    expect(notice).toEndWith(wanted);
    expect(err).toContain(`NOTICE ${notice}`);
  }
  // A site that is away and is not the primary is told, and is no reason for a notice.
  await enter(2, "spare");
  for (const line of lines(place("second"))) {
    const { terminal, out, err } = captured();
    expect(await runCli([...line, "--json", "-c", config], terminal)).toBe(0);
    expect(JSON.parse(out.join(""))).not.toHaveProperty("notice");
    expect(err.join("\n")).toContain("NOTICE Site main does not answer: ");
  }
});
