/**
 * The command line that the scripts of object stores share: `install` puts the program into the
 * cache, `up` runs a server in the foreground until it is interrupted.
 */
import { parseArgs } from "node:util";
import type { Missing } from "./missing.ts";

/** A real part as a command. */
export type Part<Server> = {
  /** Of scripts/real, for the usage. */
  readonly script: string;
  readonly install: () => Promise<string | Missing>;
  readonly start: (options: {
    readonly directory: string;
    readonly port?: number;
  }) => Promise<Server | Missing>;
  /** What a person needs to reach it. */
  readonly show: (server: Server) => object;
};

/** Runs the command of this process; its exit code. */
export async function runPart<Server extends { stop(): Promise<void> }>(
  part: Part<Server>,
): Promise<number> {
  const { values, positionals } = parseArgs({
    args: Bun.argv.slice(2),
    allowPositionals: true,
    options: { port: { type: "string" }, directory: { type: "string" } },
  });
  const [command] = positionals;
  if (command === "install") {
    const program = await part.install();
    console.log(typeof program === "string" ? program : `missing: ${program.missing}`);
    return typeof program === "string" ? 0 : 1;
  }
  const { directory, port } = values;
  if (command !== "up" || directory === undefined) {
    console.error(`usage: bun scripts/real/${part.script} install | up --directory D [--port N]`);
    return 2;
  }
  const given = port === undefined ? {} : { port: Number(port) };
  const server = await part.start({ directory, ...given });
  if ("missing" in server) {
    console.error(`missing: ${server.missing}`);
    return 1;
  }
  console.log(JSON.stringify(part.show(server)));
  const { promise, resolve: end } = Promise.withResolvers<void>();
  process.once("SIGINT", end);
  process.once("SIGTERM", end);
  await promise;
  await server.stop();
  return 0;
}
