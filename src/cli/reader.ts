/**
 * Where `list`, `show`, `verify` and `export` read from: a server, or with -c FILE and no -u the site itself,
 * for the day when all servers are gone.
 */
import type { CommandRun } from "./command.ts";

/** True if the command goes straight to the site. */
export function isOffline(run: CommandRun): boolean {
  return run.options.config !== undefined && run.options.url === undefined;
}
