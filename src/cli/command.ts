/**
 * What a command's function gets, and how it says what it did: data for `--json`, text for people.
 */
import type { ExitCode } from "./exit-code.ts";
import { EXIT } from "./exit-code.ts";
import type { GlobalOptions } from "./options.ts";
import type { Terminal } from "./terminal.ts";

/** One run of a command. */
export type CommandRun = {
  readonly terminal: Terminal;
  readonly options: GlobalOptions;
};

/** How a command ended. */
export type CommandEnd = ExitCode;

/** Prints one JSON document, or text. */
export function print(run: CommandRun, value: unknown, text: () => string): void {
  if (run.options.json === true) run.terminal.print(JSON.stringify(value, undefined, 2));
  else run.terminal.print(text());
}

/** Says why something else than the primary was read, where an answer has such a notice. */
export function sayNotice<Answer extends { readonly notice?: string | undefined }>(
  run: CommandRun,
  answer: Answer,
): Answer {
  if (answer.notice !== undefined) run.terminal.say(`NOTICE ${answer.notice}`);
  return answer;
}

/** Prints and says that all is well. */
export function printDone(run: CommandRun, value: unknown, text: () => string): CommandEnd {
  print(run, value, text);
  return EXIT.done;
}
