/**
 * Compiles the chunker's SIMD code and writes it as base64 into src/cas/format/chunker-wasm/binary.ts,
 * with the hash of the source that it came from. With `--check` nothing is written: the exit code
 * says whether the committed binary is what the committed source compiles to.
 *
 *     bun scripts/build-chunker.ts [--check]
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FOLDER = join(import.meta.dir, "../src/cas/format/chunker-wasm");
const SOURCE = join(FOLDER, "chunker.as.ts");
const TARGET = join(FOLDER, "binary.ts");
const LINE_LENGTH = 92;

const generated = renderBinary(compile(), readFileSync(SOURCE));
if (process.argv.includes("--check")) {
  if (readFileSync(TARGET, "utf8") !== generated) {
    console.error("binary.ts is not what chunker.as.ts compiles to: run scripts/build-chunker.ts");
    process.exitCode = 1;
  }
} else {
  writeFileSync(TARGET, generated);
}

function compile(): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), "astacus-chunker-"));
  try {
    const output = join(folder, "chunker.wasm");
    const options = ["-O3", "--converge", "--noAssert", "--enable", "simd", "--runtime", "stub"];
    const memory = ["--importMemory", "--initialMemory", "1", "--use", "abort="];
    const compiler = join(import.meta.dir, "../node_modules/assemblyscript/bin/asc.js");
    const command = ["bun", compiler, SOURCE, "-o", output, ...options, ...memory];
    const { exitCode, stderr } = Bun.spawnSync(command, { stderr: "pipe" });
    if (exitCode !== 0) throw new Error(`asc failed: ${stderr.toString()}`);
    return readFileSync(output);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function renderBinary(binary: Uint8Array, source: Uint8Array): string {
  const lines = Buffer.from(binary)
    .toString("base64")
    .match(new RegExp(`.{1,${LINE_LENGTH}}`, "g"));
  return `/**
 * The compiled form of chunker.as.ts, made by scripts/build-chunker.ts: do not edit. It is committed
 * so that neither a build step nor a compiler stands between a clone and a running program.
 */

/** SHA-256 of the source that this was compiled from. */
export const CHUNKER_SOURCE_SHA256 =
  "${Bun.SHA256.hash(source, "hex")}";

/** The WebAssembly module, base64. */
export const CHUNKER_WASM_BASE64 = [
${(lines ?? []).map((line) => `  "${line}",`).join("\n")}
].join("");
`;
}
