/**
 * Manners of single processes: what they say when something is wrong, and with which code they end.
 */
import { describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { ProcessCluster, runAstacus } from "./process-cluster.ts";

const TIMEOUT_MS = 60_000;
const TOKEN = "a-token-of-the-tests-0123456789";
const TOKENS = `tokens: {admin: ${TOKEN}, read: read-${TOKEN}}`;

describe("the command line", () => {
  test("names the nearest command and option, and ends with 2", async () => {
    const command = await runAstacus(["bakup"]);
    expect(command).toMatchObject({ code: 2, stdout: "" });
    expect(command.stderr).toContain("Did you mean backup?");
    const option = await runAstacus(["restore", "--pan"]);
    expect(option).toMatchObject({ code: 2 });
    expect(option.stderr).toContain("Did you mean --plan?");
  });

  test("prints help on stdout for the program and for each command", async () => {
    for (const args of [["--help"], ["help", "restore"], ["site", "init", "--help"]]) {
      const { code, stdout, stderr } = await runAstacus(args);
      expect({ args, code, stderr, isHelp: stdout.startsWith("Usage: astacus") }).toEqual({
        args,
        code: 0,
        stderr: "",
        isHelp: true,
      });
    }
  });

  test("ends with 3 where no server answers, and says so as JSON too", async () => {
    const { code, stdout, stderr } = await runAstacus([
      "list",
      "-u",
      "http://127.0.0.1:9",
      "--json",
    ]);
    expect(code).toBe(3);
    expect(JSON.parse(stdout)).toMatchObject({ error: { kind: "unavailable" } });
    expect(stderr).toContain("No server answers at http://127.0.0.1:9");
  });
});

describe("a configuration", () => {
  test("with typos is told all of them at once, with places and nearest keys", async () => {
    await using cluster = await ProcessCluster.create({
      nodes: ["a"],
      more: "retntion: {minimum: 3}\nbackup: {attemps: 2, workers: many}",
    });
    for (const args of [
      ["config", "check"],
      ["server", "--node", "a"],
    ]) {
      const { code, stderr } = await runAstacus([...args, "-c", cluster.config]);
      expect(code).toBe(2);
      expect(stderr).toContain("3 problems");
      expect(stderr).toContain('unknown key "retntion". Did you mean "retention"?');
      expect(stderr).toContain('unknown key "attemps". Did you mean "attempts"?');
      expect(stderr).toMatch(/astacus\.conf:9:\d+ backup\.workers/);
    }
  });

  test("is checked against the world: a root that is not there, a site without a repository", async () => {
    await using cluster = await ProcessCluster.create({ nodes: ["a"] });
    fs.rmdirSync(cluster.root("a"));
    const check = ["config", "check", "--node", "a", "-c", cluster.config, "--json"];
    const bad = await runAstacus(check);
    expect(bad.code).toBe(1);
    expect(JSON.parse(bad.stdout)).toMatchObject({ ok: false });
    fs.mkdirSync(cluster.root("a"));
    await cluster.init();
    const good = await runAstacus(check);
    expect(good.code).toBe(0);
    expect(JSON.parse(good.stdout)).toMatchObject({ ok: true });
  });

  test("that is not there is 2, and names the file", async () => {
    const { code, stderr } = await runAstacus(["server", "-c", "/nowhere/astacus.conf"]);
    expect(code).toBe(2);
    expect(stderr).toContain("/nowhere/astacus.conf");
  });
});

describe("a site", () => {
  test("is made once, and checked", async () => {
    await using cluster = await ProcessCluster.create({ nodes: ["a"] });
    const init = ["site", "init", "-c", cluster.config, "--json"];
    const made = await runAstacus(init);
    expect(JSON.parse(made.stdout)).toMatchObject({ site: "disk", header: { format: "astacus" } });
    const again = await runAstacus(init);
    expect(again.code).toBe(1);
    expect(again.stderr).toContain("There is a repository");
    const check = await runAstacus(["site", "check", "-c", cluster.config, "--json"]);
    expect(JSON.parse(check.stdout)).toMatchObject({ ok: true });
    // Nothing of the check stays.
    expect(fs.readdirSync(join(cluster.folder, "site/probe"))).toEqual([]);
  });
});

describe("a server", () => {
  test(
    "says what it waits for, and is ready when it is there",
    async () => {
      await using cluster = await ProcessCluster.create({ nodes: ["a"] });
      fs.mkdirSync(join(cluster.folder, "site"));
      cluster.spawn("a");
      const url = cluster.urls["a"] ?? "";
      await cluster.until("it says why", async () => {
        const answer = await fetch(`${url}/readyz`).catch(() => undefined);
        const body = (await answer?.json()) as { message?: string } | undefined;
        return body?.message?.includes("no repository") === true;
      });
      expect((await fetch(`${url}/readyz`)).status).toBe(503);
      expect((await fetch(`${url}/healthz`)).status).toBe(200);
      expect(await cluster.at("a", "list")).toMatchObject({ code: 3 });
      await cluster.init();
      await cluster.untilReady("a");
      const warnings = cluster.log("a").filter((line) => line.level === "warn");
      expect(warnings.map((line) => line.message)).toEqual(["the node is not ready"]);
      expect(await cluster.at("a", "list")).toMatchObject({ code: 0 });
    },
    TIMEOUT_MS,
  );

  test(
    "refuses a port in use, with 1 and the port",
    async () => {
      await using cluster = await ProcessCluster.create({ nodes: ["a"] });
      await cluster.init();
      await cluster.start("a");
      const second = await runAstacus(["server", "-c", cluster.config, "--node", "a"]);
      expect(second.code).toBe(1);
      expect(second.stderr).toContain("The port is in use");
      expect(second.stderr).toContain(new URL(cluster.urls["a"] ?? "").port);
    },
    TIMEOUT_MS,
  );

  test(
    "knows its tokens: none, a wrong one, one for reading, from environment, file and configuration",
    async () => {
      await using cluster = await ProcessCluster.create({ nodes: ["a"], more: TOKENS });
      await cluster.init();
      await cluster.start("a");
      const url = ["-u", cluster.urls["a"] ?? ""];
      expect(await runAstacus(["list", ...url])).toMatchObject({ code: 4 });
      const wrong = { ASTACUS_TOKEN: "wrong" };
      expect(await runAstacus(["list", ...url], wrong)).toMatchObject({ code: 4 });
      const read = { ASTACUS_TOKEN: `read-${TOKEN}` };
      expect(await runAstacus(["list", ...url], read)).toMatchObject({ code: 0 });
      expect(await runAstacus(["backup", ...url], read)).toMatchObject({ code: 4 });
      const admin = { ASTACUS_TOKEN: TOKEN };
      expect(await runAstacus(["backup", ...url], admin)).toMatchObject({ code: 0 });
      const file = join(cluster.folder, "token");
      fs.writeFileSync(file, `${TOKEN}\n`);
      expect(await runAstacus(["backup", "--token-file", file, ...url])).toMatchObject({ code: 0 });
      expect(await runAstacus(["backup", "-c", cluster.config])).toMatchObject({ code: 0 });
      expect(await runAstacus(["status", "-c", cluster.config])).toMatchObject({ code: 0 });
      expect(fs.readFileSync(join(cluster.folder, "a.log"), "utf8")).not.toContain(TOKEN);
    },
    TIMEOUT_MS,
  );

  test(
    "without tokens refuses a foreign Host and Origin",
    async () => {
      await using cluster = await ProcessCluster.create({ nodes: ["a"] });
      await cluster.init();
      await cluster.start("a");
      const ask = async (headers: Record<string, string>): Promise<number> =>
        (await fetch(`${cluster.urls["a"]}/v1/status`, { headers })).status;
      expect(await ask({})).toBe(200);
      expect(await ask({ host: "evil.example" })).toBe(403);
      expect(await ask({ origin: "https://evil.example" })).toBe(403);
    },
    TIMEOUT_MS,
  );

  test(
    "reads its configuration again on SIGHUP, and keeps the old one where the new one is wrong",
    async () => {
      await using cluster = await ProcessCluster.create({ nodes: ["a"] });
      await cluster.init();
      await cluster.start("a");
      const good = fs.readFileSync(cluster.config, "utf8");
      fs.writeFileSync(cluster.config, `${good}\nretntion: {}\n`);
      expect(await cluster.at("a", "check-reload")).toMatchObject({ code: 1 });
      cluster.process("a").kill("SIGHUP");
      const has = (message: string) => async () =>
        cluster.log("a").some((line) => line.message === message);
      await cluster.until("it is said", has("the configuration was kept"));
      expect(await cluster.at("a", "list")).toMatchObject({ code: 0 });
      const reload = await cluster.at("a", "reload");
      expect(reload.code).toBe(2);
      expect(reload.stderr).toContain("retntion");
      fs.writeFileSync(cluster.config, `${good}\n${TOKENS}\n`);
      cluster.process("a").kill("SIGHUP");
      await cluster.until("it is read", has("the configuration was read again"));
      expect(await cluster.at("a", "list")).toMatchObject({ code: 4 });
      await cluster.untilReady("a");
      expect(await runAstacus(["backup", "-c", cluster.config])).toMatchObject({ code: 0 });
      // Who asks for it is answered when the node works again, and not before.
      const waited = await cluster.at("a", "reload", "--json", "-c", cluster.config);
      expect(JSON.parse(waited.stdout)).toMatchObject({ node: "open" });
      expect(await cluster.at("a", "list", "-c", cluster.config)).toMatchObject({ code: 0 });
    },
    TIMEOUT_MS,
  );

  test(
    "listens and calls itself over IPv6",
    async () => {
      await using cluster = await ProcessCluster.create({
        nodes: ["a"],
        host: "::1",
        more: TOKENS,
      });
      await cluster.init();
      await cluster.start("a");
      expect(cluster.urls["a"]).toStartWith("http://[::1]:");
      expect(await runAstacus(["backup", "-c", cluster.config])).toMatchObject({ code: 0 });
    },
    TIMEOUT_MS,
  );
});
