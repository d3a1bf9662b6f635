/**
 * `astacus server`.
 */
import { AppError } from "../base/error.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { EXIT } from "./exit-code.ts";
import { loadConfig } from "./load-config.ts";

/** Runs until a signal ends it. */
export async function server(
  run: CommandRun,
  own: { readonly node?: string },
): Promise<CommandEnd> {
  const { config } = run.options;
  if (config === undefined) {
    throw new AppError("usage", "`astacus server` needs -c FILE.", {
      guidance: "examples/ has files to start from.",
    });
  }
  const load = () => loadConfig(config, own.node);
  // A wrong file is told before the server is loaded.
  load();
  const { runServer } = await import("../server/main.ts");
  await runServer(load);
  return EXIT.done;
}
