/**
 * A mirror becomes the primary by one `role` entry, when the primary is gone for ever. What this node
 * knows of the old primary and the mirror lacks is named, backup by backup. A primary that answers
 * after all gives the mirror everything first; one that does not is left out, since a site that never
 * answers would hold back retention for ever. Should it come back, it joins as a mirror.
 */
import { AppError } from "../base/error.ts";
import { copyStateOf } from "../cas/copy/copy-side.ts";
import type { EntryBodies } from "../cas/log/entry.ts";
import type { BackupRecord, Roles } from "../cas/log/state.ts";
import { listedBackups } from "../cas/log/state.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import { enter } from "./migrate-operation.ts";
import { copyLacking } from "./mirror-operation.ts";
import type { OperationContext } from "./operations.ts";
import { withRetentions } from "./site-roles.ts";
import type { OpenSite, SitesNow, SiteView } from "./site-views.ts";

/**
 * What a silent primary may know of newer roles that nobody here has seen: its entries must not take
 * back a promotion when it returns. Nobody enters as many while all others are away.
 */
const SILENT_EPOCHS = 1000;

/** A backup that the new primary does not have. */
export type MissingBackup = {
  readonly id: string;
  readonly name: string;
  readonly ended: string;
  readonly bytes: number;
  /** Sites that list it and answer: `sync` brings it from there. */
  readonly at: readonly string[];
};

/** What a promotion did. */
export type PromoteResult = {
  readonly site: string;
  readonly former: string;
  readonly epoch: number;
  /** False if this node has never read the log of the old primary: nobody can say what is lost. */
  readonly isKnown: boolean;
  /** Backups that were acknowledged on the old primary, as far as this node knows. */
  readonly missing: readonly MissingBackup[];
};

/** What a promotion works with: there may be no primary to work on. */
export type PromoteParts = Pick<CoordinatorParts, "sites" | "config">;

/** Makes the site of a name the primary. */
export async function promoteSite(
  parts: PromoteParts,
  context: OperationContext,
  name: string,
): Promise<PromoteResult> {
  const { sites } = parts;
  const { signal } = context;
  context.progress({ phase: "look" });
  const now = await sites.look(signal);
  const { open: target, view } = mustBePromotable(now, name);
  const former = formerOf(now);
  if (former.open !== undefined) {
    context.say(`The primary ${former.name} answers: ${name} gets what it lacks first.`);
    const to = { open: target, retention: view.retention };
    await copyLacking({ ...parts, site: former.open }, context, { from: former.open, to });
  }
  context.progress({ phase: "switch" });
  // The copy may have taken hours: what is entered is decided from the roles of now.
  await enter(parts, context, (roles, then) => {
    if (roles?.primary === target.id) return undefined;
    mustStillBe(former, then);
    return bodyOf(then, { former: formerOf(then), target: mustBePromotable(then, name) });
  });
  const after = await sites.look(signal);
  if (after.roles?.primary !== target.id) throw otherPrimary(name, after);
  const { isKnown, missing } = whatIsMissing(after, { former, target, sites });
  for (const { name: lost, at } of missing) {
    const where = at.length === 0 ? "on no site that answers" : `only on ${at.join(", ")}`;
    context.say(`Backup ${lost} is not on ${name}; it is ${where}.`);
  }
  return { site: name, former: former.name, epoch: after.roles.epoch, isKnown, missing };
}

/** What `updateSites` did: the sites whose retention was entered anew. */
export type UpdateResult = { readonly changed: readonly string[] };

/** Enters what this node's configuration says now of the retention of its sites. */
export async function updateSites(
  { sites }: Pick<PromoteParts, "sites">,
  context: Pick<OperationContext, "signal">,
): Promise<UpdateResult> {
  await sites.primary(context.signal);
  const configured = new Map(sites.configured.map(({ name, retention }) => [name, retention]));
  let before: Roles | undefined;
  await enter({ sites }, context, (roles, now) => {
    before ??= roles;
    // Without an entry the configuration counts as it is.
    if (roles === undefined) return undefined;
    const retentions = new Map(
      now.sites.flatMap(({ name, id, isConfigured }) =>
        id === undefined || !isConfigured ? [] : [[id, configured.get(name)] as const],
      ),
    );
    return withRetentions(roles, retentions);
  });
  const after = sites.last?.roles?.sites ?? [];
  const known = new Map(before?.sites.map(({ site, retention }) => [site, retention]));
  const changed = after.filter(({ site, retention }) => {
    return known.has(site) && !Bun.deepEquals(retention, known.get(site));
  });
  return { changed: changed.map(({ name }) => name) };
}

type Target = { readonly view: SiteView; readonly open: OpenSite };

function mustBePromotable(now: SitesNow, name: string): Target {
  const view = now.sites.find((one) => one.name === name && one.isConfigured);
  if (view === undefined) {
    throw new AppError("not-found", `The configuration names no site ${name}.`, {
      guidance: `Its sites are ${now.sites.map((one) => one.name).join(", ")}.`,
    });
  }
  if (view.role === "primary") throw isPrimary(view, now);
  if (view.open === undefined) {
    throw view.error ?? new AppError("unavailable", `Site ${name} does not answer.`);
  }
  if (view.role === "mirror") return { view, open: view.open };
  const is = view.role === "archive" ? "is an archive" : "takes no part in the repository";
  const why = view.role === "closed" ? "has been retired" : is;
  throw new AppError("refused", `Site ${name} ${why}; only a mirror can be promoted.`, {
    guidance: "`astacus site list` shows all sites and what they are.",
  });
}

/** Whoever asks may mean that it is gone, and that another one is to take its place. */
function isPrimary({ name, open }: SiteView, { sites }: SitesNow): AppError {
  const mirrors = sites.filter((one) => one.role === "mirror" && one.open !== undefined);
  const [mirror] = mirrors.map((one) => one.name);
  const state = open === undefined ? "the primary, and does not answer" : "the primary already";
  const instead =
    mirror === undefined
      ? "No mirror answers."
      : `If it is gone for good, make a mirror the primary: \`astacus site promote ${mirror}\`.`;
  return new AppError("refused", `Site ${name} is ${state}; only a mirror can be promoted.`, {
    guidance: `${instead} \`astacus site list\` shows all sites and what they are.`,
    context: { site: name, reason: "is-primary" },
  });
}

/** The site that the roles name, whether or not its log has ended; else that of the configuration. */
function formerOf({ roles, sites }: SitesNow): SiteView {
  const former = sites.find(({ id, role }) =>
    roles === undefined ? role === "primary" : id === roles.primary,
  );
  if (former !== undefined) return former;
  throw new AppError("refused", "No site is the primary, and no `role` entry names one.", {
    guidance: "`astacus site list` shows all sites and what they are.",
  });
}

/** Somebody who made another site the primary meanwhile meant it, and it may have more by now. */
function mustStillBe(former: SiteView, now: SitesNow): void {
  const { id, name } = formerOf(now);
  const isSame = former.id === undefined ? former.name === name : former.id === id;
  if (!isSame) throw otherPrimary(former.name, now);
}

function otherPrimary(name: string, now: SitesNow): AppError {
  const { name: primary } = formerOf(now);
  return new AppError(
    "conflict",
    `The primary was changed meanwhile, and not to ${name}: it is ${primary}.`,
    {
      guidance: "Run the command again if it is still what you want.",
      retryable: true,
      context: { site: name, primary, reason: "other-primary" },
    },
  );
}

function whatIsMissing(
  now: SitesNow,
  at: {
    readonly former: SiteView;
    readonly target: OpenSite;
    readonly sites: PromoteParts["sites"];
  },
): Pick<PromoteResult, "isKnown" | "missing"> {
  const known = new Map<string, BackupRecord>();
  const own = at.sites.stateOf(at.former);
  // Other sites may have got what this node has never read of the old primary.
  for (const state of [own, ...now.sites.map(({ open }) => open?.repository.state)]) {
    for (const backup of state === undefined ? [] : listedBackups(state)) {
      known.set(backup.backup, backup);
    }
  }
  const there = at.target.repository.state;
  const missing = [...known.values()]
    .filter(({ backup }) => copyStateOf(there, backup) === "copy")
    .map(({ backup: id, name, ended, totals }) => ({
      id,
      name,
      ended,
      bytes: totals.bytes,
      at: now.sites
        .filter(({ open }) => open?.repository.state.backups.get(id)?.forgotten === undefined)
        .filter(({ open }) => open?.repository.state.backups.has(id) === true)
        .map((one) => one.name),
    }))
    .toSorted((a, b) => (a.ended < b.ended ? -1 : 1));
  return { isKnown: own !== undefined, missing };
}

function bodyOf(
  { roles, sites }: SitesNow,
  { former, target }: { readonly former: SiteView; readonly target: Target },
): EntryBodies["role"] {
  const rows =
    roles?.sites ??
    sites.flatMap(({ id, name, location, role, open }) =>
      id === undefined || open === undefined || role === "closed" || role === undefined
        ? []
        : [{ site: id, name, location: location ?? open.repository.site.location, role }],
    );
  const isSilent = former.open === undefined;
  const isGone = isSilent || former.role === "closed";
  const { id } = target.open;
  return {
    epoch: (roles?.epoch ?? 0) + (isSilent ? SILENT_EPOCHS : 1),
    primary: id,
    sites: rows
      .filter(({ site }) => !(isGone && site === former.id))
      .map((row) => {
        const role = row.site === id ? "primary" : row.role === "primary" ? "mirror" : row.role;
        return { ...row, role };
      }),
    reason: isGone
      ? `${target.view.name} was promoted, as ${former.name} is gone`
      : `${target.view.name} was promoted in place of ${former.name}`,
  };
}
