/**
 * Writes the TypeScript of every `.proto` file below src beside it, as `NAME.pb.ts`: run it after a
 * change of one. Needs `protoc` (Debian: protobuf-compiler); the plugin comes through bunx, in the
 * version of the library that reads what it writes.
 *
 *   bun scripts/generate-proto.ts
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import project from "../package.json" with { type: "json" };

const VERSION = project.dependencies["@bufbuild/protobuf"];
const PLUGIN = `@bufbuild/protoc-gen-es@${VERSION}`;

const root = dirname(import.meta.dir);
const temporary = mkdtempSync(join(tmpdir(), "astacus-proto-"));
try {
  const plugin = join(temporary, "protoc-gen-es");
  await Bun.write(plugin, `#!/bin/sh\nexec bunx --package ${PLUGIN} protoc-gen-es "$@"\n`);
  await run(["chmod", "+x", plugin]);
  for (const source of [...new Bun.Glob("src/**/*.proto").scanSync({ cwd: root })].toSorted()) {
    const folder = join(root, dirname(source));
    const name = basename(source, ".proto");
    await run([
      "protoc",
      `--plugin=protoc-gen-es=${plugin}`,
      "--es_opt=target=ts,import_extension=ts",
      `--es_out=${temporary}`,
      `--proto_path=${folder}`,
      `${name}.proto`,
    ]);
    const written = await Bun.file(join(temporary, `${name}_pb.ts`)).text();
    const opening = `/** The messages of ${name}.proto. Generated (scripts/generate-proto.ts); not edited by hand. */`;
    const target = join(folder, `${name}.pb.ts`);
    await Bun.write(target, `${opening}\n${tidied(written)}`);
    await run(["bunx", "oxfmt", target]);
  }
} finally {
  rmSync(temporary, { recursive: true, force: true });
}

/** Without the comments that speak of other tools. */
function tidied(text: string): string {
  return text.replace(/^\/\/ @generated[^\n]*\n|^\/\* eslint-disable \*\/\n/gm, "");
}

async function run(command: readonly string[]): Promise<void> {
  const child = Bun.spawn([...command], { cwd: root, stdout: "ignore", stderr: "pipe" });
  const talk = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) throw new Error(`${command[0]} failed: ${talk.trim()}`);
}
