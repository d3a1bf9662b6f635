/**
 * `astacus site init` and `astacus site check`.
 */
import { AppError } from "../base/error.ts";
import { nearest } from "../base/nearest.ts";
import { CHUNKER_SETTINGS_DEFAULT } from "../cas/format/chunker.ts";
import { mustHaveRecipients, sealerFor } from "../cas/keys/repository-encryption.ts";
import { initRepository } from "../cas/log/header-object.ts";
import type { SharedConfig, SiteConfig } from "../server/config.ts";
import { openSite } from "../server/open-site.ts";
import { listCertificationSteps } from "../sites/certify.ts";
import { makeDirectorySite } from "../sites/directory-site.ts";
import { probeCreateIfAbsent } from "../sites/probe.ts";
import type { SiteFinding } from "../sites/site.ts";
import { printDone } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { needsFile } from "./command-config.ts";
import { loadEncryption } from "./identities.ts";
import { loadSharedConfig } from "./load-config.ts";
import { getSisterHeader } from "./sister-header.ts";
import { OFFLINE_DOORS } from "./offline.ts";

type SiteOptions = { readonly site?: string; readonly encrypt?: boolean };

/** Makes the repository, or where the other sites hold one already, an empty part of it. */
export async function init(
  run: CommandRun,
  named: string | undefined,
  own: SiteOptions,
): Promise<CommandEnd> {
  const wanted = named ?? own.site;
  const { config, chosen } = choose(run, wanted === undefined ? {} : { site: wanted }, "site init");
  const others = config.sites.filter((each) => each !== chosen);
  const encryption = await loadEncryption(run, config);
  if (own.encrypt === true && encryption === undefined) throw nothingToEncryptWith();
  if (encryption !== undefined) mustHaveRecipients(encryption);
  const sister = await getSisterHeader(others, OFFLINE_DOORS, run.terminal.say);
  // What does not fit is refused as it is wherever a repository is opened.
  if (sister !== undefined)
    sealerFor(sister, encryption, { name: "", location: "the other sites" });
  if (chosen.type === "directory") {
    const { name, path } = chosen;
    if (await makeDirectorySite({ name, path })) run.terminal.say(`${path} was made.`);
  }
  const { site } = await openSite(chosen, OFFLINE_DOORS);
  await using _ = site;
  await probeCreateIfAbsent(site, OFFLINE_DOORS.random);
  const { rule } = CHUNKER_SETTINGS_DEFAULT;
  const header = await initRepository(site, {
    doors: OFFLINE_DOORS,
    chunker: sister?.chunker ?? { rule, averageSizeBytes: config.backup.chunkSizeBytes },
    ...(sister === undefined ? {} : { repository: sister.repository }),
    keys: encryption?.keys,
  });
  return printDone(run, { site: site.name, location: site.location, header }, () => {
    const made = `Repository ${header.repository} was made at ${site.location}.`;
    if (sister === undefined) return made;
    return `${site.location} is a part of repository ${header.repository} now, and still empty.`;
  });
}

function nothingToEncryptWith(): AppError {
  return new AppError("config", "The configuration has no `encryption`.", {
    guidance:
      "Make node keys with `astacus key node-init FILE` and an identity with `astacus key generate " +
      "FILE`, and name them: encryption: {nodeKey: {file: …}, recipients: [age1…]}.",
  });
}

/** Tries everything that operations need of a site. */
export async function check(run: CommandRun, own: SiteOptions): Promise<CommandEnd> {
  const { chosen } = choose(run, own, "site check");
  const { site } = await openSite(chosen, OFFLINE_DOORS);
  await using _ = site;
  const { clock } = OFFLINE_DOORS;
  const done: { readonly step: string; readonly ms: number }[] = [];
  const findings: SiteFinding[] = [];
  for (const step of listCertificationSteps(site, OFFLINE_DOORS.random)) {
    const startedMs = clock.monotonic();
    const found = await step.run();
    done.push({ step: step.name, ms: Math.round(clock.monotonic() - startedMs) });
    run.terminal.say(`ok  ${step.name}`);
    for (const { level, what, guidance } of found) {
      const mark = level === "ok" ? "    " : "  ! ";
      run.terminal.say(`${mark}${what}${guidance === undefined ? "" : `. ${guidance}`}`);
    }
    findings.push(...found);
  }
  const warnings = findings.filter(({ level }) => level === "warning").length;
  const answer = { site: site.name, location: site.location, ok: true, steps: done, findings };
  return printDone(run, answer, () => {
    const but = warnings === 0 ? "" : `, with ${warnings} warning${warnings === 1 ? "" : "s"}`;
    return `${site.location} does all that is needed${but}.`;
  });
}

function choose(
  run: CommandRun,
  own: SiteOptions,
  command: string,
): { readonly config: SharedConfig; readonly chosen: SiteConfig } {
  const file = run.options.config;
  if (file === undefined) throw needsFile(command);
  const config = loadSharedConfig(file);
  if (own.site === undefined) return { config, chosen: config.sites[0] };
  const chosen = config.sites.find((each) => each.name === own.site);
  if (chosen !== undefined) return { config, chosen };
  const names = config.sites.map((each) => each.name);
  const meant = nearest(own.site, names);
  throw new AppError("not-found", `There is no site ${own.site} in ${file}.`, {
    guidance: meant === undefined ? `Sites: ${names.join(", ")}.` : `Did you mean ${meant}?`,
  });
}
