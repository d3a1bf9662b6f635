/** Making sites: the first one draws a repository, the others become a part of it. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runCli } from "../../src/cli/main.ts";
import { temporaryFolder } from "../cas/temporary-folder.ts";

type Header = { repository: string; site: string; chunker: object };

/** A file with so many folders as sites, s1 first. */
function twoSites(folder: string, chunkSize = "256KiB") {
  const config = join(folder, `astacus-${chunkSize}.yaml`);
  const sites = ["s1", "s2"].map((name) => `  - {name: ${name}, type: directory, path: ${name}}`);
  writeFileSync(
    config,
    `cluster: c\nproduct: {type: files, root: /srv}\nbackup: {chunkSize: ${chunkSize}}\nsites:\n${sites.join("\n")}\n`,
  );
  const run = async (...args: string[]) => {
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
  const header = (site: string): Header =>
    JSON.parse(readFileSync(join(folder, site, "astacus-repository"), "utf8")) as Header;
  return { run, header };
}

describe("site init", () => {
  test("makes a second site a part of the first one's repository, cut alike", async () => {
    using folder = temporaryFolder();
    const { run, header } = twoSites(folder.path);
    expect(await run("site", "init")).toMatchObject({ code: 0 });
    const other = twoSites(folder.path, "64KiB");
    const second = await other.run("site", "init", "s2");
    expect(second).toMatchObject({ code: 0 });
    expect(second.said).toContain("still empty");
    expect(header("s2").repository).toBe(header("s1").repository);
    expect(header("s2").site).not.toBe(header("s1").site);
    expect(header("s2").chunker).toEqual(header("s1").chunker);
  });

  test("draws no new repository while another site cannot be asked", async () => {
    using folder = temporaryFolder();
    const { run } = twoSites(folder.path);
    mkdirSync(join(folder.path, "s1"));
    writeFileSync(join(folder.path, "s1", "astacus-repository"), "{");
    const refused = await run("site", "init", "s2");
    expect(refused.code).not.toBe(0);
    expect(refused.said).toContain("not known which repository");
    rmSync(join(folder.path, "s1"), { recursive: true });
    expect(await run("site", "init", "s2")).toMatchObject({ code: 0 });
  });

  test("does not finish what was begun for another repository", async () => {
    using folder = temporaryFolder();
    const { run, header } = twoSites(folder.path);
    await run("site", "init", "s1");
    mkdirSync(join(folder.path, "s2"));
    const stranger = { ...header("s1"), repository: "f".repeat(32), site: "e".repeat(32) };
    writeFileSync(join(folder.path, "s2", "astacus-repository"), JSON.stringify(stranger));
    expect(await run("site", "init", "s2")).toMatchObject({ code: 1 });
  });

  test("knows the sites by name", async () => {
    using folder = temporaryFolder();
    const { run } = twoSites(folder.path);
    const wrong = await run("site", "init", "s3");
    expect(wrong.code).toBe(1);
    expect(wrong.said).toContain("s1");
  });
});
