/**
 * `astacus key`: the keys of encrypted repositories. None of these commands needs a server; secrets go
 * to files, never to the terminal.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AppError } from "../base/error.ts";
import { getErrnoCode } from "../base/errno.ts";
import { joinPath, pathFromText } from "../base/path.ts";
import { Catalog } from "../cas/catalog/catalog.ts";
import { drawId } from "../cas/format/ids.ts";
import { drawNodeKeys, fingerprintOf, formatNodeKeys } from "../cas/format/node-keys.ts";
import { drawIdentity, formatIdentity, recipientOf } from "../cas/keys/age.ts";
import { isSealedFor } from "../cas/keys/frame-opener.ts";
import { mustHaveRecipients } from "../cas/keys/repository-encryption.ts";
import { rotateKeys } from "../cas/keys/rotate-keys.ts";
import { Repository } from "../cas/log/repository.ts";
import type { NodeEncryption } from "../cluster/member-config.ts";
import type { SharedConfig, SiteConfig } from "../server/config.ts";
import { openSite } from "../server/open-site.ts";
import { printDone } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { needsFile } from "./command-config.ts";
import { loadEncryption, passphrase } from "./identities.ts";
import { loadSharedConfig } from "./load-config.ts";
import { OFFLINE_DOORS } from "./offline.ts";
import { renderPairs, renderTable } from "./table.ts";

/** Makes an identity. */
export async function generate(run: CommandRun, file: string): Promise<CommandEnd> {
  const made = await drawIdentity();
  const secret = passphrase();
  writeNew(file, await formatIdentity(made, secret));
  const { recipient } = made;
  const answer = { file, recipient, passphrase: secret !== undefined };
  return printDone(run, answer, () => {
    run.terminal.say(
      `${file} restores whatever is wrapped for this recipient: keep it off the nodes, and keep a copy.`,
    );
    return recipient;
  });
}

/** Makes node keys. */
export async function nodeInit(run: CommandRun, file: string): Promise<CommandEnd> {
  const keys = drawNodeKeys(OFFLINE_DOORS.random);
  writeNew(file, formatNodeKeys(keys));
  const fingerprint = fingerprintOf(keys);
  return await Promise.resolve(
    printDone(run, { file, fingerprint }, () => {
      run.terminal.say(
        `Copy ${file} to every node, and to a safe place: no backup is found without.`,
      );
      return fingerprint;
    }),
  );
}

/** The session keys that the log names. */
export async function list(run: CommandRun): Promise<CommandEnd> {
  return await withRepository(run, { command: "key list" }, async ({ repository }) => {
    const keys = Array.from(repository.state.keys, ([id, { birth, recipients }]) => ({
      id,
      birth,
      recipients: [...recipients],
    }));
    return printDone(run, { site: repository.site.name, keys }, () => {
      const rows = keys.map(({ id, birth, recipients }) => [
        id.slice(0, 16),
        String(birth),
        recipients.join(", "),
      ]);
      const columns = [{ title: "KEY" }, { title: "BIRTH" }, { title: "RECIPIENTS" }];
      return renderTable(columns, rows);
    });
  });
}

/** What this machine can do with its keys. */
export async function check(run: CommandRun): Promise<CommandEnd> {
  return await withRepository(run, { command: "key check" }, async ({ repository, encryption }) => {
    const { recipients, identities } = encryption;
    const opener = repository.openerFor(identities);
    let openable = 0;
    for (const id of repository.state.keys.keys()) {
      try {
        await opener.sessionKey(id);
        openable += 1;
      } catch (thrown) {
        if (!isSealedFor(thrown)) throw thrown;
      }
    }
    const total = repository.state.keys.size;
    const own = await Promise.all(identities.map(recipientOf));
    const answer = {
      site: repository.site.name,
      nodeKeys: fingerprintOf(encryption.keys),
      canBackUp: recipients.length > 0,
      recipients,
      identities: own,
      keys: total,
      keysOpened: openable,
      canRestore: total === openable && identities.length > 0,
      // What is backed up from now on.
      canRestoreNew: recipients.some((recipient) => own.includes(recipient)),
    };
    return printDone(run, answer, () =>
      renderPairs([
        ["node keys", "are those of this repository"],
        ["back up", answer.canBackUp ? `yes, for ${recipients.join(", ")}` : "no: no recipients"],
        [
          "restore",
          identities.length === 0
            ? "no: no identity was given, and none is configured"
            : `${openable} of ${total} session keys open`,
        ],
        ["restore what comes", answer.canRestoreNew ? "yes" : "no"],
      ]),
    );
  });
}

/** What a rotation did at one site; null where the log has ended and takes nothing more. */
type SiteRotation = {
  readonly site: string;
  readonly rewrapped: number | null;
  readonly unchanged: number | null;
};

/** Wraps all session keys, on all sites of the file whose log goes on, for its recipients. */
export async function rotate(run: CommandRun): Promise<CommandEnd> {
  const config = mustLoad(run, "key rotate");
  const done: SiteRotation[] = [];
  for (const site of config.sites) {
    const how = { command: "key rotate", site, isWriting: true };
    await withRepository(run, how, async ({ repository, encryption }) => {
      if (repository.state.closed !== undefined) {
        done.push({ site: site.name, rewrapped: null, unchanged: null });
        return;
      }
      const { identities } = encryption;
      const recipients = mustHaveRecipients(encryption);
      const operation = drawId(OFFLINE_DOORS.random);
      const result = await rotateKeys(repository, { identities, recipients, operation });
      done.push({ site: site.name, ...result });
    });
  }
  return printDone(run, { sites: done }, () =>
    done
      .map(({ site, rewrapped, unchanged }) =>
        rewrapped === null
          ? `${site}: retired, passed over: its keys stay wrapped as they were`
          : `${site}: ${rewrapped} wrapped, ${unchanged} as they were`,
      )
      .join("\n"),
  );
}

async function withRepository<T>(
  run: CommandRun,
  how: { readonly command: string; readonly site?: SiteConfig; readonly isWriting?: boolean },
  work: (opened: {
    readonly repository: Repository;
    readonly encryption: NodeEncryption;
  }) => Promise<T>,
): Promise<T> {
  const config = mustLoad(run, how.command);
  const encryption = await loadEncryption(run, config);
  if (encryption === undefined) throw notEncrypted();
  const folder = mkdtempSync(join(tmpdir(), "astacus-"));
  try {
    const { site } = await openSite(how.site ?? config.sites[0], OFFLINE_DOORS);
    await using _ = site;
    const path = joinPath(pathFromText(folder), "catalog.sqlite");
    using catalog = Catalog.open(OFFLINE_DOORS.databases, path);
    const repository = await Repository.open({
      site,
      catalog,
      doors: OFFLINE_DOORS,
      node: "key",
      encryption,
      readOnly: how.isWriting !== true,
    });
    return await work({ repository, encryption });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function mustLoad(run: CommandRun, command: string): SharedConfig {
  if (run.options.config === undefined) throw needsFile(command);
  return loadSharedConfig(run.options.config);
}

function notEncrypted(): AppError {
  return new AppError("config", "The configuration has no `encryption`.", {
    guidance: "A plain repository has no keys.",
  });
}

/** For the owner's eyes only, and never over a file that is there. */
function writeNew(file: string, text: string): void {
  try {
    writeFileSync(file, text, { flag: "wx", mode: 0o600 });
  } catch (thrown) {
    const code = getErrnoCode(thrown) ?? "unknown";
    throw new AppError(
      code === "EEXIST" ? "conflict" : "config",
      `${file} was not written (${code}).`,
      {
        guidance: "Name a file that does not exist yet, in a folder that this user may write to.",
        context: { file, code },
        cause: thrown,
      },
    );
  }
}
