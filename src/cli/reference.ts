/**
 * The reference page of the command line, from the same program that parses it.
 */
import type { Command, Option } from "commander";
import { EXIT_CODES_IN_WORDS } from "./exit-code.ts";
import { createProgram } from "./program.ts";
import type { Terminal } from "./terminal.ts";

const NOWHERE: Terminal = {
  print: () => {},
  say: () => {},
  isLive: false,
  canAsk: false,
  ask: () => Promise.resolve(false),
};

const INTRODUCTION = `# The command line

This page is generated from the program: \`bun scripts/generate-cli-reference.ts\`.

Commands speak HTTP with a server and wait for the operation that they start, with a progress bar on a
terminal and plain lines elsewhere. Data goes to stdout and talk to stderr; \`--json\` prints one JSON
document. A lost connection cancels nothing and is picked up again; Ctrl-C cancels the operation, and
a second one leaves at once.

The address comes from \`-u\`, else from the file of \`-c\`, else it is http://localhost:5515. The token
comes from \`ASTACUS_TOKEN\`, else \`--token-file\` or \`ASTACUS_TOKEN_FILE\`, else the file of \`-c\`.

With \`-c FILE\` and no \`-u\` the commands \`list\`, \`show\`, \`verify\`, \`export\` and \`restore --to DIR\` read
straight from the site: no server, no cluster and no catalog is needed for them, only the file.
`;

/** docs/cli.md. */
export function renderCliReference(): string {
  const program = createProgram(NOWHERE, () => {});
  const parts = [
    INTRODUCTION,
    `## Exit codes\n\n${codeBlock(EXIT_CODES_IN_WORDS)}`,
    `## Options of every command\n\n${renderOptions(program.options)}`,
    ...program.commands.flatMap((command) => renderCommand(command, "astacus")),
  ];
  return `${parts.join("\n").trimEnd()}\n`;
}

function renderCommand(command: Command, parent: string): string[] {
  const name = `${parent} ${command.name()}`;
  if (command.commands.length > 0) {
    return command.commands.flatMap((child) => renderCommand(child, name));
  }
  const usage = `${name} ${command.usage().replace("[options]", "").trim()}`.trim();
  const text = command.description();
  const sentence = `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
  const options = command.options.length === 0 ? [] : [renderOptions(command.options)];
  return [`## ${usage}\n\n${sentence}\n`, ...options];
}

function renderOptions(options: readonly Option[]): string {
  const rows = options.map((option) => {
    const flags = option.flags.replaceAll("|", "\\|");
    return `| \`${flags}\` | ${option.description.replaceAll("|", "\\|")} |`;
  });
  return `${["| Option | |", "|---|---|", ...rows].join("\n")}\n`;
}

function codeBlock(text: string): string {
  return `${text.replaceAll(/^/gm, "    ")}\n`;
}
