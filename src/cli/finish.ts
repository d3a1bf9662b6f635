/**
 * The common end of every command that starts an operation: follow it, print what it did, and turn
 * its end into an exit code.
 */
import { AppError } from "../base/error.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import type { Client } from "./client.ts";
import { print } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { EXIT, exitCodeOf } from "./exit-code.ts";
import { follow } from "./follow.ts";
import { describeUsage } from "./usage-text.ts";

/** How the result of one kind of operation is told. */
export type ResultForm = {
  /** The result in words. */
  readonly text: (result: unknown, record: OperationRecord) => string;
  /** The code for an operation that is done; 0 unless told. */
  readonly code?: (result: unknown) => CommandEnd;
};

/** Follows an operation that was started and ends the command with it. */
export async function finish(
  run: CommandRun,
  client: Client,
  started: OperationRecord,
  form: ResultForm,
): Promise<CommandEnd> {
  const record = await follow(run, client, started);
  if (record.ended === undefined) return leave(run, record);
  if (record.state === "done") {
    print(run, record, () =>
      [form.text(record.result, record), ...describeUsage(record.usage ?? [])].join("\n"),
    );
    return form.code?.(record.result) ?? EXIT.done;
  }
  const { kind, message, ...rest } = record.error ?? { kind: "internal", message: "No reason." };
  const error = new AppError(kind, message, rest);
  if (run.options.json === true) print(run, record, () => "");
  run.terminal.say(`astacus: The ${record.kind} ${record.state}: ${error.message}`);
  if (error.guidance !== undefined) run.terminal.say(`  ${error.guidance}`);
  return exitCodeOf(error);
}

/** It goes on without us. */
function leave(run: CommandRun, record: OperationRecord): CommandEnd {
  print(run, record, () => record.id);
  run.terminal.say(`The ${record.kind} goes on; \`astacus status\` shows it.`);
  const isAsked = !run.options.wait;
  return isAsked ? EXIT.done : EXIT.failed;
}
