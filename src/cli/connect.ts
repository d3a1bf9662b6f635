/**
 * Finds the server and the token: what was said on the command line, else the environment, else the
 * server's own file.
 */
import { readFileSync } from "node:fs";
import { AppError } from "../base/error.ts";
import { getErrnoCode } from "../base/errno.ts";
import type { Client } from "./client.ts";
import type { CommandRun } from "./command.ts";
import { DEFAULT_URL } from "./options.ts";
import type { GlobalOptions } from "./options.ts";

/** A client for the server that the options mean; only a restore sends identities to one. */
export async function connect(
  run: CommandRun,
  how: { readonly sendsIdentities?: boolean } = {},
): Promise<Client> {
  const { Client } = await import("./client.ts");
  const { options } = run;
  if (options.identity !== undefined && how.sendsIdentities !== true) {
    throw new AppError("usage", "A server takes --identity for a restore only.", {
      guidance: "Give -c FILE and no server: then the site is read by this command itself.",
    });
  }
  const fromFile = options.config === undefined ? {} : await readServersFile(options.config);
  const token = tokenOf(options) ?? fromFile.token;
  const caFile = options.caFile ?? fromFile.caFile;
  const url = options.url ?? fromFile.url ?? DEFAULT_URL;
  if (!/^https?:\/\//.test(url) || !URL.canParse(url)) {
    throw new AppError("usage", `${url} is no address of a server.`, {
      guidance: `It looks like ${DEFAULT_URL}.`,
    });
  }
  return new Client({
    url,
    ...(token === undefined ? {} : { token }),
    ...(caFile === undefined ? {} : { authority: readFile(caFile) }),
  });
}

type FromFile = { readonly url?: string; readonly token?: string; readonly caFile?: string };

/** On a node its own address and authority, elsewhere the first node's address. */
async function readServersFile(file: string): Promise<FromFile> {
  const { loadConfig, loadSharedConfig } = await import("./load-config.ts");
  const config = loadSharedConfig(file);
  const token = (config.tokens.admin ?? config.tokens.read)?.reveal();
  const known = token === undefined ? {} : { token };
  try {
    const { self } = loadConfig(file);
    const caFile = self.listen.tls?.ca;
    return { url: self.address, ...known, ...(caFile === undefined ? {} : { caFile }) };
  } catch (thrown) {
    // This machine is none of the nodes; any of them can coordinate.
    if (!(thrown instanceof AppError)) throw thrown;
    const url = config.nodes[0]?.address;
    return { ...known, ...(url === undefined ? {} : { url }) };
  }
}

function tokenOf(options: GlobalOptions): string | undefined {
  const said = process.env["ASTACUS_TOKEN"];
  if (said !== undefined && said !== "") return said;
  const file = options.tokenFile ?? process.env["ASTACUS_TOKEN_FILE"];
  return file === undefined || file === "" ? undefined : readFile(file).trim();
}

function readFile(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (thrown) {
    const code = getErrnoCode(thrown) ?? "unknown";
    throw new AppError("usage", `The file ${file} cannot be read (${code}).`, { cause: thrown });
  }
}
