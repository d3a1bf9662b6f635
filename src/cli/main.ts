/**
 * Runs one command line: arguments in, exit code out. Errors end here, in words for people or as
 * JSON, and nowhere else.
 */
import { CommanderError } from "commander";
import type { AppError } from "../base/error.ts";
import { toAppError } from "../base/error.ts";
import { EXIT, exitCodeOf } from "./exit-code.ts";
import type { ExitCode } from "./exit-code.ts";
import { createProgram } from "./program.ts";
import type { Terminal } from "./terminal.ts";

/** Runs `astacus` with arguments; never throws. */
export async function runCli(args: readonly string[], terminal: Terminal): Promise<number> {
  let code: ExitCode = EXIT.done;
  const program = createProgram(terminal, (end) => (code = end));
  try {
    await program.parseAsync([...args], { from: "user" });
    return code;
  } catch (thrown) {
    if (thrown instanceof CommanderError) {
      return thrown.exitCode === 0 ? EXIT.done : EXIT.usage;
    }
    const error = toAppError(thrown);
    report(error, { terminal, isJson: args.includes("--json") });
    return exitCodeOf(error);
  }
}

function report(
  error: AppError,
  how: { readonly terminal: Terminal; readonly isJson: boolean },
): void {
  const { terminal } = how;
  if (how.isJson) terminal.print(JSON.stringify({ error }, undefined, 2));
  terminal.say(`astacus: ${error.message}`);
  if (error.guidance !== undefined) terminal.say(`  ${error.guidance}`);
  if (error.kind !== "internal") return;
  const cause = error.cause instanceof Error ? error.cause : error;
  terminal.say(cause.stack ?? "");
  terminal.say("  This is a defect of Astacus: please report it with the lines above.");
}
