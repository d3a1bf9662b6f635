/** What commands tell beside what was asked: that nobody else knows of damage, and what was proved. */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { realClock } from "../../src/base/clock.ts";
import { runCli } from "../../src/cli/main.ts";
import { createApp } from "../../src/server/app.ts";
import { listen } from "../../src/server/listen.ts";
import { openDirectorySite } from "../../src/sites/directory-site.ts";
import { noise } from "../cas/noise.ts";
import { RepositoryBuilder } from "../cas/repository-builder.ts";
import { temporaryFolder } from "../cas/temporary-folder.ts";
import { BACKUP, createTestServer } from "./fake-node.ts";

async function say(line: readonly string[]) {
  const [out, err] = [[] as string[], [] as string[]];
  const terminal = {
    print: (text: string) => void out.push(text),
    say: (text: string) => void err.push(text),
    isLive: false,
    canAsk: false,
    ask: () => Promise.resolve(false),
  };
  const code = await runCli(line, terminal);
  return { code, out: out.join("\n"), err: err.join("\n") };
}

test("a verification without a server says that no node was told of what it found", async () => {
  using folder = temporaryFolder();
  const place = join(folder.path, "site");
  fs.mkdirSync(place);
  await using site = await openDirectorySite({ name: "disk", path: place, clock: realClock });
  using builder = await RepositoryBuilder.create({ site });
  await builder.backup("nightly", { a: { data: [{ path: "x", content: noise(50_000, 1) }] } });
  const config = join(folder.path, "astacus.conf");
  const sites = [{ name: "disk", type: "directory", path: place }];
  const nodes = [{ name: "a", address: "http://127.0.0.1:5515" }];
  const product = { type: "files", root: folder.path };
  fs.writeFileSync(config, JSON.stringify({ cluster: "test", nodes, product, sites, data: place }));
  const whole = await say(["verify", "-c", config]);
  expect([whole.code, whole.err]).toEqual([0, ""]);
  const packs: string[] = [];
  for await (const { key } of site.list("pack/")) packs.push(key);
  await site.delete(packs.slice(0, 1));
  const broken = await say(["verify", "-c", config]);
  expect(broken.code).toBe(1);
  expect(broken.err).toContain("No node was told");
});

test("a backup is shown with the time when it was last proved", async () => {
  const { fake, context } = createTestServer();
  const detail = { ...BACKUP, shares: [], problems: [], state: {} };
  const proved = { ...detail, provedAt: "2026-01-02T03:04:05.000Z" };
  const app = createApp(context);
  const at = { host: "127.0.0.1", port: 0, tls: undefined };
  const listener = listen(at, (request, bindings) => app.fetch(request, bindings));
  try {
    const line = ["show", "nightly", "-u", listener.url];
    expect((await say(line)).out).not.toContain("proved");
    Object.assign(fake.api, { showBackup: async () => proved });
    expect((await say(line)).out).toMatch(/proved +2026-01-02 03:04:05 UTC: all was read/);
  } finally {
    await listener.stop(true);
  }
});
