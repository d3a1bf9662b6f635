/** What `config check` says of sites that do not belong together, and of keys that do not fit. */
import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runCli } from "../../src/cli/main.ts";
import { temporaryFolder } from "../cas/temporary-folder.ts";
import { READER } from "../cas/encryption-keys.ts";

const GOOD = READER.recipient;
const BAD = `${GOOD.slice(0, -1)}${GOOD.endsWith("q") ? "p" : "q"}`;

function commands(folder: string) {
  mkdirSync(join(folder, "root"), { recursive: true });
  return async (args: readonly string[], sites: readonly string[], section = "") => {
    const config = join(folder, "astacus.yaml");
    const rows = sites.map((name) => `  - {name: ${name}, type: directory, path: ${name}}`);
    const head = "cluster: c\ndata: data\nproduct: {type: files, root: root}\nsites:";
    writeFileSync(config, `${[head, ...rows, section].join("\n")}\n`);
    const said: string[] = [];
    const terminal = {
      print: (text: string) => void said.push(text),
      say: (text: string) => void said.push(text),
      isLive: false,
      canAsk: false,
      ask: () => Promise.resolve(false),
    };
    const code = await runCli([...args, "-c", config], terminal);
    return { code, said: said.join("\n") };
  };
}

test("a mirror that holds another repository is a problem", async () => {
  using folder = temporaryFolder();
  const run = commands(folder.path);
  for (const site of ["s1", "s2"]) expect((await run(["site", "init"], [site])).code).toBe(0);
  expect((await run(["config", "check"], ["s1"])).code).toBe(0);
  const { code, said } = await run(["config", "check"], ["s1", "s2"]);
  expect(said).toContain("Site s2 holds repository");
  expect(code).toBe(1);
});

test("encryption that is not that of the repository is a problem, and so is a wrong recipient", async () => {
  using folder = temporaryFolder();
  const run = commands(folder.path);
  const key = join(folder.path, "node.key");
  expect((await run(["key", "node-init", key], ["plain"])).code).toBe(0);
  const section = (recipients: string) =>
    `encryption: {nodeKey: {file: node.key}, recipients: [${recipients}]}`;
  expect((await run(["site", "init"], ["plain"])).code).toBe(0);
  expect((await run(["site", "init"], ["sealed"], section(GOOD))).code).toBe(0);
  expect((await run(["config", "check"], ["sealed"], section(GOOD))).code).toBe(0);

  const unneeded = await run(["config", "check"], ["plain"], section(GOOD));
  expect(unneeded).toMatchObject({ code: 1, said: expect.stringContaining("is plain") });
  const lacking = await run(["config", "check"], ["sealed"]);
  expect(lacking).toMatchObject({ code: 1, said: expect.stringContaining("is encrypted") });
  const mistyped = await run(["config", "check"], ["sealed"], section(BAD));
  expect(mistyped.code).toBe(1);
  expect(mistyped.said).toContain(`${BAD} is not a recipient of age`);
  const nobody = await run(["config", "check"], ["sealed"], section(""));
  expect(nobody.code).toBe(2);
  expect(nobody.said).toContain("a list of 1 to 100 entries");
});
