/**
 * The identities that a command is given with --identity, for encrypted repositories. A file under a
 * passphrase is opened with that of ASTACUS_PASSPHRASE.
 */
import { readFileSync } from "node:fs";
import { AppError } from "../base/error.ts";
import { getErrnoCode } from "../base/errno.ts";
import { parseIdentities } from "../cas/keys/age.ts";
import type { NodeEncryption } from "../cluster/member-config.ts";
import { openEncryption } from "../server/config-encryption.ts";
import type { SharedConfig } from "../server/config.ts";
import type { CommandRun } from "./command.ts";

/** All identities of the files that were named. */
export async function loadIdentities({ options }: CommandRun): Promise<string[]> {
  const found: string[] = [];
  for (const file of options.identity ?? []) {
    found.push(...(await parseIdentities(readKeyFile(file), file, passphrase())));
  }
  return found;
}

/** The keys of a configuration, with the identities of this command. */
export async function loadEncryption(
  run: CommandRun,
  config: SharedConfig,
): Promise<NodeEncryption | undefined> {
  const own = await openEncryption(config, { passphrase: passphrase() });
  const given = await loadIdentities(run);
  if (own === undefined && given.length > 0) {
    throw new AppError("usage", "--identity is for encrypted repositories.", {
      guidance: "The configuration has no `encryption`: leave --identity out.",
    });
  }
  return own === undefined ? undefined : { ...own, identities: [...given, ...own.identities] };
}

/** The bytes of a file of keys; AppError `config` where it cannot be read. */
export function readKeyFile(file: string): Uint8Array {
  try {
    return new Uint8Array(readFileSync(file));
  } catch (thrown) {
    const code = getErrnoCode(thrown) ?? "unknown";
    throw new AppError("config", `The file ${file} cannot be read (${code}).`, {
      guidance: "Check its path, and that this user may read it.",
      context: { file, code },
      cause: thrown,
    });
  }
}

/** From the environment, since a command line shows in every list of processes. */
export function passphrase(): string | undefined {
  return process.env["ASTACUS_PASSPHRASE"] || undefined;
}
