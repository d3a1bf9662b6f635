/**
 * `astacus key`: the keys of encrypted repositories. None of these commands needs a server; secrets go
 * to files, never to the terminal.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AppError, toAppError } from "../base/error.ts";
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
import { primaryElsewhere, roleHere } from "../cluster/offline.ts";
import type { OtherSite } from "../cluster/offline-sites.ts";
import type { SharedConfig, SiteConfig } from "../server/config.ts";
import { openSite } from "../server/open-site.ts";
import type { Site } from "../sites/site.ts";
import { print, printDone } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { needsFile } from "./command-config.ts";
import { EXIT } from "./exit-code.ts";
import { loadEncryption, passphrase } from "./identities.ts";
import { loadSharedConfig } from "./load-config.ts";
import type { SiteReader } from "./offline.ts";
import { OFFLINE_DOORS, openFirst } from "./offline.ts";
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

/** What this machine can do with its keys. Ends with 1 if its identities do not open all of them. */
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
    print(run, answer, () =>
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
    return identities.length > 0 && openable < total ? EXIT.failed : EXIT.done;
  });
}

/** What a rotation did at one site; null where the log has ended or the site failed. */
type SiteRotation = {
  readonly site: string;
  readonly rewrapped: number | null;
  readonly unchanged: number | null;
  readonly error?: AppError;
};

/**
 * Wraps all session keys, on all sites of the file whose log goes on, for its recipients. Ends with 1
 * if a site failed: it is rotated by the same command when it is back.
 */
export async function rotate(run: CommandRun): Promise<CommandEnd> {
  const config = mustLoad(run, "key rotate");
  const done: SiteRotation[] = [];
  for (const site of config.sites) {
    try {
      done.push(await rotateAt(run, site));
    } catch (thrown) {
      const error = toAppError(thrown);
      if (config.sites.length === 1) throw error;
      done.push({ site: site.name, rewrapped: null, unchanged: null, error });
    }
  }
  const failed = done.filter(({ error }) => error !== undefined);
  if (failed.length === done.length) throw failed[0]!.error!;
  print(run, { sites: done }, () => done.map(describeRotation).join("\n"));
  return failed.length === 0 ? EXIT.done : EXIT.failed;
}

async function rotateAt(run: CommandRun, site: SiteConfig): Promise<SiteRotation> {
  const how = { command: "key rotate", site, isWriting: true };
  return await withRepository(run, how, async ({ repository, encryption }) => {
    if (repository.state.closed !== undefined) {
      return { site: site.name, rewrapped: null, unchanged: null };
    }
    const { identities } = encryption;
    const recipients = mustHaveRecipients(encryption);
    const operation = drawId(OFFLINE_DOORS.random);
    const result = await rotateKeys(repository, { identities, recipients, operation });
    return { site: site.name, ...result };
  });
}

function describeRotation({ site, rewrapped, unchanged, error }: SiteRotation): string {
  if (error !== undefined) {
    return `${site}: NOT rotated, run this again when it is mended: ${error.message}`;
  }
  return rewrapped === null
    ? `${site}: retired, passed over: its keys stay wrapped as they were`
    : `${site}: ${rewrapped} wrapped, ${unchanged} as they were`;
}

/** Over the primary, or the first site that answers; over one site alone where that is named. */
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
    await using sites = new AsyncDisposableStack();
    const connect = async (site: SiteConfig): Promise<Site> =>
      sites.use((await openSite(site, OFFLINE_DOORS)).site);
    const all = config.sites.map((site): OtherSite => ({
      name: site.name,
      open: async () => await connect(site),
    }));
    const open = { folder, encryption, readOnly: how.isWriting !== true };
    using opened =
      how.site === undefined
        ? (await openFirst(run, all, async (site) => await openKeys(site, open))).reader
        : await openKeys(await connect(how.site), open);
    return await work({ repository: opened.repository, encryption });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** One site with a catalog of its own, which goes with `folder`. */
async function openKeys(
  site: Site,
  how: { readonly folder: string; readonly encryption: NodeEncryption; readonly readOnly: boolean },
): Promise<SiteReader & { readonly repository: Repository }> {
  const own = pathFromText(mkdtempSync(join(how.folder, "site-")));
  const catalog = Catalog.open(OFFLINE_DOORS.databases, joinPath(own, "catalog.sqlite"));
  try {
    const { encryption, readOnly } = how;
    const options = { site, catalog, doors: OFFLINE_DOORS, node: "key", encryption, readOnly };
    const repository = await Repository.open(options);
    return {
      repository,
      role: roleHere(repository.state),
      primaryElsewhere: primaryElsewhere(repository.state),
      [Symbol.dispose]: () => catalog[Symbol.dispose](),
    };
  } catch (thrown) {
    catalog[Symbol.dispose]();
    throw thrown;
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
