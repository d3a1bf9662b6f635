/**
 * The end of a site that is gone for good, and that the configuration need not name any more: one
 * `role` entry leaves it out, so that nothing waits for it. Nobody can prove what it held; what this
 * node had read of its log says which backups were only there. Should it come back all the same, and
 * be configured, it joins as a mirror.
 */
import { AppError } from "../base/error.ts";
import type { BackupRecord } from "../cas/log/state.ts";
import { listedBackups } from "../cas/log/state.ts";
import { enter } from "./migrate-operation.ts";
import type { MigrationParts } from "./migrate-plan.ts";
import { leaveRoles } from "./migrate-roles.ts";
import type { OperationContext } from "./operations.ts";
import type { SitesNow, SiteView } from "./site-views.ts";

/** A backup that stood on the lost site and on no site that answers. */
export type LostBackup = {
  readonly id: string;
  readonly name: string;
  readonly ended: string;
  readonly bytes: number;
};

/** What became of the roles. */
export type LossResult = {
  readonly lost: {
    readonly id: string;
    readonly name: string;
    readonly location: string | undefined;
  };
  readonly epoch: number;
  /** False if this node has never read the log of the site: nobody can say what is lost. */
  readonly isKnown: boolean;
  /** Oldest first. */
  readonly missing: readonly LostBackup[];
};

type Lost = SiteView & { readonly id: string };

/** Leaves a site out; throws AppError `refused` for the primary and for a site that answers. */
export async function runLoss(
  parts: Pick<MigrationParts, "sites">,
  context: Pick<OperationContext, "signal" | "progress" | "say">,
  name: string,
): Promise<LossResult> {
  const { sites } = parts;
  const { signal } = context;
  context.progress({ phase: "look" });
  // Of the primary this says more than that it does not answer.
  const lost = mustBeLost(await sites.look(signal), name);
  await sites.primary(signal);
  context.progress({ phase: "leave" });
  const row = { site: lost.id, name: lost.name, location: lost.location ?? "unknown place" };
  await enter(parts, context, (roles, now) => {
    if (roles?.sites.some(({ site }) => site === lost.id) !== true) return undefined;
    mustBeLost(now, name);
    const body = leaveRoles(roles, row);
    return body === undefined ? undefined : { ...body, reason: `${lost.name} is gone for good` };
  });
  const after = await sites.look(signal);
  const state = sites.stateOf(lost);
  const missing = state === undefined ? [] : whatIsMissing(listedBackups(state), after, lost.id);
  for (const one of missing) context.say(`Backup ${one.name} was only on ${lost.name}.`);
  return {
    lost: { id: lost.id, name: lost.name, location: lost.location },
    epoch: after.roles?.epoch ?? 0,
    isKnown: state !== undefined,
    missing,
  };
}

/** The silent site of the roles that has this name: the configuration may give it to another one. */
function mustBeLost({ roles, sites }: SitesNow, name: string): Lost {
  const named = sites.filter((one) => one.name === name);
  const isNamed = ({ id }: SiteView): boolean =>
    roles?.sites.some(({ site }) => site === id) === true;
  const lost = named.find((one) => isNamed(one) && one.open === undefined);
  if (lost?.id !== undefined) {
    if (lost.id !== roles?.primary) return { ...lost, id: lost.id };
    throw new AppError("refused", `Site ${name} is the primary: leaving it out leaves none.`, {
      guidance: "If it is gone for good, promote a mirror: `astacus site promote MIRROR`.",
      context: { site: name, reason: "is-primary" },
    });
  }
  if (named.some(({ open }) => open !== undefined)) {
    throw new AppError("refused", `Site ${name} answers: it is not lost.`, {
      guidance: `Have it proved that all is elsewhere: \`astacus site retire ${name}\`.`,
      context: { site: name, reason: "answers" },
    });
  }
  const known = roles?.sites.map((row) => row.name).join(", ") ?? "none yet";
  throw new AppError("not-found", `The repository names no site ${name}.`, {
    guidance: `It names ${known}. What only the configuration names is taken out there.`,
    context: { site: name },
  });
}

function whatIsMissing(
  backups: readonly BackupRecord[],
  { sites }: SitesNow,
  lost: string,
): LostBackup[] {
  const others = sites.flatMap(({ id, open }) => (open === undefined || id === lost ? [] : [open]));
  const there = new Set(
    others.flatMap(({ repository }) => listedBackups(repository.state).map((one) => one.backup)),
  );
  return backups
    .filter(({ backup }) => !there.has(backup))
    .map(({ backup: id, name, ended, totals }) => ({ id, name, ended, bytes: totals.bytes }))
    .toSorted((a, b) => (a.ended < b.ended ? -1 : 1));
}
