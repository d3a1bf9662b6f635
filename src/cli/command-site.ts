/**
 * `astacus site init` and `astacus site check`.
 */
import { AppError } from "../base/error.ts";
import { nearest } from "../base/nearest.ts";
import { sha256Hex, toHex } from "../base/hex.ts";
import { CHUNKER_SETTINGS_DEFAULT } from "../cas/format/chunker.ts";
import { initRepository } from "../cas/log/header-object.ts";
import type { SharedConfig, SiteConfig } from "../server/config.ts";
import { openSite } from "../server/open-site.ts";
import { makeDirectorySite } from "../sites/directory-site.ts";
import { probeCreateIfAbsent, raceCreateIfAbsent } from "../sites/probe.ts";
import type { Site } from "../sites/site.ts";
import { printDone } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { needsFile } from "./command-config.ts";
import { loadSharedConfig } from "./load-config.ts";
import { getSisterHeader } from "./sister-header.ts";
import { OFFLINE_DOORS } from "./offline.ts";

const WRITERS = 20;
const PROBE_SIZE_BYTES = 100_000;

type SiteOptions = { readonly site?: string };

/** Makes the repository, or where the other sites hold one already, an empty part of it. */
export async function init(
  run: CommandRun,
  named: string | undefined,
  own: SiteOptions,
): Promise<CommandEnd> {
  const wanted = named ?? own.site;
  const { config, chosen } = choose(run, wanted === undefined ? {} : { site: wanted }, "site init");
  const others = config.sites.filter((each) => each !== chosen);
  const sister = await getSisterHeader(others, OFFLINE_DOORS, run.terminal.say);
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
  });
  return printDone(run, { site: site.name, location: site.location, header }, () => {
    const made = `Repository ${header.repository} was made at ${site.location}.`;
    if (sister === undefined) return made;
    return `${site.location} is a part of repository ${header.repository} now, and still empty.`;
  });
}

/** Tries everything that operations need of a site. */
export async function check(run: CommandRun, own: SiteOptions): Promise<CommandEnd> {
  const { chosen } = choose(run, own, "site check");
  const { site } = await openSite(chosen, OFFLINE_DOORS);
  await using _ = site;
  const { random, clock } = OFFLINE_DOORS;
  const steps: readonly (readonly [string, () => Promise<void>])[] = [
    ["create if absent", async () => await probeCreateIfAbsent(site, random)],
    [`${WRITERS} racing writers`, async () => await raceCreateIfAbsent(site, random, WRITERS)],
    ["write, read, list, remove", async () => await tryRoundTrip(site)],
  ];
  const done: { readonly step: string; readonly ms: number }[] = [];
  for (const [step, attempt] of steps) {
    const startedMs = clock.monotonic();
    await attempt();
    done.push({ step, ms: Math.round(clock.monotonic() - startedMs) });
    run.terminal.say(`ok  ${step}`);
  }
  return printDone(run, { site: site.name, location: site.location, ok: true, steps: done }, () => {
    return `${site.location} does all that is needed.`;
  });
}

async function tryRoundTrip(site: Site): Promise<void> {
  const { random } = OFFLINE_DOORS;
  const bytes = random.bytes(PROBE_SIZE_BYTES);
  const key = `probe/${toHex(random.bytes(16))}`;
  try {
    await site.put(key, bytes, { sha256: sha256Hex(bytes) });
    const [whole, part, head] = await Promise.all([
      site.get(key),
      site.get(key, { offset: 1000, length: 5000 }),
      site.head(key),
    ]);
    mustEqual(site, "reads back what was written", whole, bytes);
    mustEqual(site, "reads a part of an object", part, bytes.subarray(1000, 6000));
    mustBe(site, "knows an object's size", head?.sizeBytes === bytes.byteLength);
    let isListed = false;
    for await (const row of site.list("probe/")) isListed ||= row.key === key;
    mustBe(site, "lists a new object", isListed);
  } finally {
    await site.delete([key]);
  }
  mustBe(site, "removes an object", (await site.head(key)) === undefined);
}

function mustEqual(
  site: Site,
  what: string,
  found: Uint8Array | undefined,
  expected: Uint8Array,
): void {
  mustBe(site, what, found !== undefined && Buffer.compare(found, expected) === 0);
}

function mustBe(site: Site, what: string, isTrue: boolean): void {
  if (isTrue) return;
  throw new AppError("refused", `${site.location} fails here: ${what}.`, {
    guidance: "Such a store cannot hold backups safely.",
    context: { site: site.name },
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
  throw new AppError("usage", `There is no site ${own.site} in ${file}.`, {
    guidance: meant === undefined ? `Sites: ${names.join(", ")}.` : `Did you mean ${meant}?`,
  });
}
