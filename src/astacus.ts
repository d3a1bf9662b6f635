#!/usr/bin/env bun
/**
 * The program `astacus`: the server and every command. All of it lies behind src/cli/main.ts; this
 * file only hands over the arguments and the exit code.
 */
import { runCli } from "./cli/main.ts";
import { processTerminal } from "./cli/terminal.ts";

process.exitCode = await runCli(process.argv.slice(2), processTerminal());
