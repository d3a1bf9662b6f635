/**
 * Damage at a site is mended from the others: the same object under a new birth, beside the bad one,
 * and one entry that names it. What no other site has whole stays as it is, and is said. Archives and
 * closed sites are left alone.
 */
import type { AppErrorJson } from "../base/error.ts";
import { AppError, toAppError } from "../base/error.ts";
import { DistrustedPacks } from "../cas/catalog/distrusted-packs.ts";
import type { DistrustedPack } from "../cas/catalog/distrusted-packs.ts";
import { getNamedPack } from "../cas/clean/pack-standing.ts";
import type { CopySide } from "../cas/copy/copy-side.ts";
import { repairObjects } from "../cas/copy/repair-objects.ts";
import type { RepairReport, RepairTarget } from "../cas/copy/repair-objects.ts";
import type { VerifyProblem } from "../cas/read/verify-problems.ts";
import type { FaultyObject } from "./read-faults.ts";
import type { SiteSet } from "./site-set.ts";
import type { OpenSite, SitesNow } from "./site-views.ts";

/** What became of the bad objects of one site. */
export type SiteRepair = {
  readonly site: string;
  /** Objects that lie under a new birth now. */
  readonly repaired: number;
  /** Objects that were right when they were looked at again. */
  readonly sound: number;
  /** What is as bad as before, and why. */
  readonly left: RepairReport["left"];
  readonly error?: AppErrorJson;
};

/** Under which operation it is committed, and when to stop. */
export type RepairHow = { readonly operation: string; readonly signal: AbortSignal };

/** How old the look may be that tells which sites answer. */
const LOOK_AGE_MS = 10_000;

/** Repairs what was found bad, site by site. What a site does is in its report, never thrown. */
export async function repairFaults(
  sites: SiteSet,
  faults: readonly FaultyObject[],
  how: RepairHow,
): Promise<SiteRepair[]> {
  const reports: SiteRepair[] = [];
  for (const [site, objects] of Map.groupBy(faults, (fault) => fault.site)) {
    reports.push(await repairSite(sites, { id: site, targets: objects }, how));
  }
  return reports;
}

/** Remembers packs that were found bad: backups do not rely on them before they are repaired. */
export async function distrustFaults(
  sites: SiteSet,
  faults: readonly FaultyObject[],
  signal: AbortSignal,
): Promise<void> {
  const now = await sites.look(signal, { maxAgeMs: LOOK_AGE_MS });
  for (const [site, objects] of Map.groupBy(faults, (fault) => fault.site)) {
    const open = now.sites.find(({ id }) => id === site)?.open;
    if (open !== undefined) distrust(open, objects);
  }
}

function distrust({ repository, catalog }: OpenSite, targets: readonly RepairTarget[]): void {
  const packs = targets.flatMap(({ kind, id }): DistrustedPack[] => {
    if (kind !== "pack") return [];
    const named = getNamedPack(repository, repository.state, id);
    return named === undefined ? [] : [{ id, birth: named.birth }];
  });
  new DistrustedPacks(catalog).add(packs);
}

/** The objects that a verification of a site found bad, as far as they can be repaired. */
export function faultsOf(site: string, problems: readonly VerifyProblem[]): FaultyObject[] {
  return problems.flatMap(({ object, fault }): FaultyObject[] => {
    if (fault !== "missing" && fault !== "damaged") return [];
    const [, kind, id] =
      /^(pack|manifest|index)\/(?:[0-9a-f]{2}\/)?([0-9a-f]{64})-[0-9]+$/.exec(object) ?? [];
    if (id === undefined) return [];
    if (kind !== "pack" && kind !== "manifest" && kind !== "index") return [];
    return [{ site, kind, id }];
  });
}

/** One line for people. */
export function describeRepair({ site, repaired, sound, left, error }: SiteRepair): string {
  if (error !== undefined) return `Site ${site} could not be repaired: ${error.message}`;
  const [first] = left;
  const rest =
    first === undefined ? "" : ` ${left.length} could not be repaired: ${first.id}: ${first.why}.`;
  return `Site ${site}: ${repaired} objects repaired, ${sound} were right.${rest}`;
}

async function repairSite(
  sites: SiteSet,
  { id, targets }: { readonly id: string; readonly targets: readonly RepairTarget[] },
  how: RepairHow,
): Promise<SiteRepair> {
  const now = await sites.look(how.signal, { maxAgeMs: LOOK_AGE_MS });
  const name = now.sites.find((site) => site.id === id)?.name ?? id;
  try {
    const to = mustBeWritable(now, id);
    distrust(to, targets);
    const from = now.sites.flatMap(({ open }) =>
      open === undefined || open.id === to.id ? [] : [sideOf(open)],
    );
    const { repaired, sound, left } = await repairObjects(sideOf(to), from, targets, how);
    new DistrustedPacks(to.catalog).remove([...repaired, ...sound]);
    return { site: name, repaired: repaired.length, sound: sound.length, left };
  } catch (thrown) {
    how.signal.throwIfAborted();
    const error = toAppError(thrown).toJSON();
    return { site: name, repaired: 0, sound: 0, left: [], error };
  }
}

function mustBeWritable({ sites }: SitesNow, id: string): OpenSite {
  const view = sites.find((site) => site.id === id);
  if (view?.open === undefined) {
    throw view?.error ?? new AppError("unavailable", `Site ${id} does not answer.`);
  }
  const { role, open, name } = view;
  if (role === "primary" || role === "mirror") return open;
  throw new AppError("refused", `Site ${name} is ${role ?? "of no role"}: it is not written to.`);
}

function sideOf({ repository, openSource }: OpenSite): CopySide {
  return { repository, source: openSource({ alone: true }) };
}
