/**
 * Archives over HTTP and by `astacus export`: the bytes are those of the archive, a refusal is an
 * answer like any other, and what breaks in the middle is never taken for the whole.
 */
import { describe, expect, test } from "bun:test";
import * as fs from "node:fs";
import { join } from "node:path";
import { unzipSync } from "fflate";
import { realClock } from "../../src/base/clock.ts";
import { AppError } from "../../src/base/error.ts";
import type { BackupArchiveRequest } from "../../src/cas/read/archive-backup.ts";
import { archiveBackup } from "../../src/cas/read/archive-backup.ts";
import { runCli } from "../../src/cli/main.ts";
import type { Terminal } from "../../src/cli/terminal.ts";
import { createApp } from "../../src/server/app.ts";
import { listen } from "../../src/server/listen.ts";
import { openDirectorySite } from "../../src/sites/directory-site.ts";
import { noise } from "../cas/noise.ts";
import type { BuilderOptions } from "../cas/repository-builder.ts";
import { RepositoryBuilder } from "../cas/repository-builder.ts";
import { text } from "../cas/restore-setup.ts";
import { parseTar } from "../cas/tar-parser.ts";
import { temporaryFolder } from "../cas/temporary-folder.ts";
import { createTestServer, TOKENS } from "./fake-node.ts";

const NODES = {
  a: {
    data: [
      { path: "x", content: noise(50_000, 1) },
      { path: "y", content: text("y") },
    ],
  },
  b: {
    data: [
      { path: "x", content: text("of b") },
      { path: "na\xefve", content: text("n") },
    ],
  },
};
const PATH = "/v1/backups/nightly/archive";

/** A server over a repository with one backup, `nightly`. */
async function createArchiveServer(options: BuilderOptions & { readonly tokens?: boolean } = {}) {
  const builder = await RepositoryBuilder.create(options);
  await builder.backup("nightly", NODES);
  const server = createTestServer({ tokens: options.tokens === true });
  const requests: BackupArchiveRequest[] = [];
  const parts = { repository: builder.repository, source: builder.source(), cluster: "test" };
  server.fake.archive = async (request, signal) => {
    requests.push(request);
    return await archiveBackup(request, parts, signal);
  };
  return { ...server, requests, [Symbol.dispose]: () => builder[Symbol.dispose]() };
}

/** The same behind a port. */
async function withListener(
  server: Awaited<ReturnType<typeof createArchiveServer>>,
  work: (url: string) => Promise<void>,
): Promise<void> {
  const app = createApp(server.context);
  const place = { host: "127.0.0.1", port: 0, tls: undefined };
  const listener = listen(place, (request, bindings) => app.fetch(request, bindings));
  try {
    await work(listener.url);
  } finally {
    await listener.stop(true);
  }
}

function captured(): { terminal: Terminal; out: string[]; err: string[] } {
  const out: string[] = [];
  const err: string[] = [];
  const terminal: Terminal = {
    print: (text) => void out.push(text),
    say: (text) => void err.push(text),
    isLive: false,
    canAsk: false,
    ask: () => Promise.resolve(false),
  };
  return { terminal, out, err };
}

describe("GET /v1/backups/NAME/archive", () => {
  test("answers a ZIP or a tar under the backup's name", async () => {
    using server = await createArchiveServer();
    const zip = await server.ask("GET", `${PATH}?node=a`);
    expect(zip.status).toBe(200);
    expect(zip.headers.get("content-type")).toBe("application/zip");
    expect(zip.headers.get("content-disposition")).toContain('filename="nightly.zip"');
    const files = unzipSync(new Uint8Array(await zip.arrayBuffer()));
    expect(Object.keys(files)).toEqual(["a/", "a/data/", "a/data/x", "a/data/y"]);
    expect(Buffer.compare(files["a/data/x"]!, noise(50_000, 1))).toBe(0);
    const tar = await server.ask("GET", `${PATH}?format=tar`);
    expect(tar.headers.get("content-type")).toBe("application/x-tar");
    expect(tar.headers.get("content-disposition")).toContain('filename="nightly.tar"');
    const names = parseTar(new Uint8Array(await tar.arrayBuffer())).map(({ name }) => name);
    expect(names).toContain("b/data/na\xefve");
  });

  test("takes nodes and globs as often as they are given", async () => {
    using server = await createArchiveServer();
    const query = "format=tar&node=a&node=b&path=x&path=na*&incomplete=true";
    expect((await server.ask("GET", `${PATH}?${query}`)).status).toBe(200);
    expect(server.requests).toEqual([
      {
        backup: "nightly",
        format: "tar",
        nodes: ["a", "b"],
        paths: ["x", "na*"],
        incomplete: true,
      },
    ]);
  });

  test("refuses what it cannot do before it begins", async () => {
    using server = await createArchiveServer();
    const failures = [
      [PATH, 422, "zip-limits"],
      ["/v1/backups/nothing/archive", 404, "not-found"],
      [`${PATH}?node=c`, 404, "not-found"],
      [`${PATH}?node=a&path=nothing`, 404, "not-found"],
      [`${PATH}?format=rar`, 400, "invalid-request"],
      [`${PATH}?node=a&node=`, 400, "invalid-request"],
      [`${PATH}?nodes=a`, 400, "invalid-request"],
    ] as const;
    for (const [path, status, code] of failures) {
      const answer = await server.ask("GET", path);
      expect({ path, status: answer.status }).toEqual({ path, status });
      expect(await answer.json()).toMatchObject({ code });
    }
  });

  test("takes an admin, since it hands out the data", async () => {
    using server = await createArchiveServer({ tokens: true });
    expect((await server.ask("GET", PATH, { token: TOKENS.read })).status).toBe(403);
    const path = `${PATH}?format=tar`;
    expect((await server.ask("GET", path, { token: TOKENS.admin })).status).toBe(200);
  });

  test("answers a HEAD with the headers alone", async () => {
    using server = await createArchiveServer();
    const answer = await server.ask("HEAD", `${PATH}?format=tar`);
    expect(answer.headers.get("content-type")).toBe("application/x-tar");
    expect((await answer.arrayBuffer()).byteLength).toBe(0);
  });

  test("names a file as the backup is called, whatever that is", async () => {
    using server = await createArchiveServer();
    server.fake.archive = async () => ({
      backup: { id: "ab".repeat(16), name: 'gr\u00fc"\u00dfe (1)', complete: true },
      entryCount: 0,
      contentBytes: 0,
      bytes: async function* () {},
    });
    const answer = await server.ask("GET", PATH);
    expect(answer.headers.get("content-disposition")).toBe(
      `attachment; filename="gr___e__1_.zip"; filename*=UTF-8''gr%C3%BC%22%C3%9Fe%20%281%29.zip`,
    );
  });

  test("stops reading when the client goes", async () => {
    using server = await createArchiveServer();
    const ended = Promise.withResolvers<boolean>();
    server.fake.archive = async (_, signal) => endlessArchive(signal, ended.resolve);
    await withListener(server, async (url) => {
      const gone = new AbortController();
      const answer = await fetch(url + PATH, { signal: gone.signal });
      await answer.body?.getReader().read();
      gone.abort();
      expect(await ended.promise).toBe(true);
    });
  });

  test("breaks the connection where the archive breaks off", async () => {
    using server = await createArchiveServer();
    server.fake.archive = async () => brokenArchive();
    await withListener(server, async (url) => {
      const answer = await fetch(url + PATH);
      expect(answer.status).toBe(200);
      const outcome = await answer.arrayBuffer().then(
        () => "whole",
        () => "broken",
      );
      expect(outcome).toBe("broken");
    });
  });
});

describe("astacus export", () => {
  test("writes what the server sends, and says how much", async () => {
    using server = await createArchiveServer();
    using folder = temporaryFolder();
    await withListener(server, async (url) => {
      const output = join(folder.path, "x.tar");
      const { terminal, out } = captured();
      const line = ["export", "nightly", "--node", "b", "--node", "a", "--path", "x", "-u", url];
      expect(await runCli([...line, "--output", output, "--json"], terminal)).toBe(0);
      const bytes = fs.readFileSync(output);
      expect(parseTar(bytes).map(({ name }) => name)).toEqual(
        "a/,a/data/,a/data/x,b/,b/data/,b/data/x".split(","),
      );
      expect(JSON.parse(out.join(""))).toMatchObject({ format: "tar", sizeBytes: bytes.length });
      expect(fs.readdirSync(folder.path)).toEqual(["x.tar"]);
    });
  });

  test("leaves nothing where the archive breaks off or is refused", async () => {
    using server = await createArchiveServer();
    using folder = temporaryFolder();
    await withListener(server, async (url) => {
      const line = ["export", "nightly", "-u", url, "--output", join(folder.path, "x.zip")];
      const refused = captured();
      expect(await runCli(line, refused.terminal)).toBe(4);
      expect(refused.err.join("\n")).toContain("Take tar");
      server.fake.archive = async () => brokenArchive();
      const broken = captured();
      expect(await runCli(line, broken.terminal)).toBe(1);
      expect(broken.err.join("\n")).toContain("broke off");
      expect(fs.readdirSync(folder.path)).toEqual([]);
    });
  });

  test("writes over nothing", async () => {
    using folder = temporaryFolder();
    const output = join(folder.path, "x.zip");
    fs.writeFileSync(output, "mine");
    const { terminal, err } = captured();
    expect(await runCli(["export", "nightly", "--output", output], terminal)).toBe(2);
    expect(err.join("\n")).toContain("is there already");
    expect(fs.readFileSync(output, "utf8")).toBe("mine");
  });

  test("needs no server with -c FILE, and writes to stdout as well", async () => {
    using folder = temporaryFolder();
    const place = join(folder.path, "site");
    fs.mkdirSync(place);
    await using site = await openDirectorySite({ name: "disk", path: place, clock: realClock });
    using builder = await RepositoryBuilder.create({ site });
    await builder.backup("nightly", NODES);
    const config = join(folder.path, "astacus.conf");
    const node = { name: "a", address: "http://127.0.0.1:5515" };
    fs.writeFileSync(
      config,
      JSON.stringify({
        cluster: "test",
        nodes: [node],
        data: join(folder.path, "data"),
        product: { type: "files", root: join(folder.path, "root") },
        sites: [{ name: "disk", type: "directory", path: place }],
      }),
    );
    const output = join(folder.path, "x.zip");
    const line = ["export", "nightly", "-c", config, "--node", "a"];
    const { terminal } = captured();
    expect(await runCli([...line, "--output", output], terminal)).toBe(0);
    const files = unzipSync(fs.readFileSync(output));
    expect(Buffer.compare(files["a/data/x"]!, noise(50_000, 1))).toBe(0);
    const program = join(import.meta.dir, "../../src/astacus.ts");
    const child = Bun.spawn([process.execPath, program, ...line, "--output", "-"], {
      stdout: "pipe",
      stderr: "pipe",
    });
    const piped = await new Response(child.stdout).bytes();
    expect(await child.exited).toBe(0);
    expect(Buffer.compare(piped, fs.readFileSync(output))).toBe(0);
  });
});

type Archive = Awaited<ReturnType<typeof archiveBackup>>;

function archiveOf(bytes: Archive["bytes"]): Archive {
  const backup = { id: "ab".repeat(16), name: "nightly", complete: true };
  return { backup, entryCount: 1, contentBytes: 1, bytes };
}

/** Says at its end whether it was told to stop. */
function endlessArchive(signal: AbortSignal, ended: (wasAborted: boolean) => void): Archive {
  return archiveOf(async function* () {
    try {
      for (;;) yield new Uint8Array(100_000);
    } finally {
      ended(signal.aborted);
    }
  });
}

function brokenArchive(): Archive {
  return archiveOf(async function* () {
    yield new Uint8Array(100_000);
    throw new AppError("damaged", "A chunk is damaged.");
  });
}
