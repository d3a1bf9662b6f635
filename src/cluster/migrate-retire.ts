/**
 * The end of a site: all that it holds is proved to be elsewhere, byte by byte; its log is closed;
 * what came in between is copied and proved; and a `role` entry leaves it out. What is not proved is
 * named, and then nothing is closed. Nothing is removed from it: whoever wants the space removes the
 * bucket or the directory. The same command goes on after a crash.
 */
import { AppError, toAppError } from "../base/error.ts";
import { closeLog } from "../cas/copy/close-log.ts";
import { copyBackups } from "../cas/copy/copy-backups.ts";
import { backupsToHold } from "../cas/copy/copy-side.ts";
import { commitRoles } from "../cas/copy/roles.ts";
import type { Unproved } from "../cas/copy/prove-copy.ts";
import type { Roles } from "../cas/log/state.ts";
import { proveCopy } from "../cas/copy/prove-copy.ts";
import { PACKS_AT_ONCE } from "./copy-packs.ts";
import { enter } from "./migrate-operation.ts";
import type { MigrationParts, MigrationSite } from "./migrate-plan.ts";
import { describeSite, sideOf } from "./migrate-plan.ts";
import { leaveRoles } from "./migrate-roles.ts";
import type { OperationContext } from "./operations.ts";
import { bodyOfRoles } from "./site-roles.ts";
import type { OpenSite } from "./site-views.ts";

/** Which site is to end. */
export type RetireRequest = {
  readonly site: string;
  /** True for one that is gone for good: nothing is proved; see lose-site.ts. */
  readonly lost?: boolean;
};

/** What was proved. */
export type RetireResult = {
  readonly site: MigrationSite;
  readonly successor: MigrationSite;
  /** Backups of the site, all proved elsewhere. */
  readonly backups: number;
  readonly packs: number;
  readonly bytes: number;
  /** Backups that had come in between, by name. */
  readonly copied: readonly string[];
};

/** Where the site is, and where all of it must be. */
type Ending = {
  readonly parts: MigrationParts;
  readonly context: OperationContext;
  readonly site: OpenSite;
  readonly primary: OpenSite;
  /** The primary first. */
  readonly others: readonly OpenSite[];
};

type Proved = {
  readonly backups: number;
  readonly packs: number;
  readonly bytes: number;
  readonly unproved: readonly Unproved[];
};

const NAMES_SHOWN = 20;

/** Retires a site; throws AppError `refused`, naming what is only there. */
export async function runRetirement(
  parts: MigrationParts,
  context: OperationContext,
  request: RetireRequest,
): Promise<RetireResult> {
  const { signal } = context;
  const ending = await look(parts, context, request.site);
  const { site, primary } = ending;
  const isClosed = site.repository.state.closed !== undefined;
  // A log that was closed by an interrupted run may hold what nobody had proved.
  if (!isClosed) mustBeProved(site, await prove(ending, { phase: "prove", deep: true }));
  context.progress({ phase: "close" });
  const reason = `retired in favour of ${primary.name}`;
  const how = { successor: primary.id, reason, operation: context.id, signal };
  await closeLog(site.repository, how);
  const copied = await copyTheRest(ending);
  // What was copied since was read back: of the rest it is enough that it is there still, unless it
  // was proved at a site that has ended too.
  const isEnded = ending.others.some(({ repository }) => repository.state.closed !== undefined);
  const proved = await prove(ending, { phase: "prove again", deep: isClosed || isEnded });
  mustBeProved(site, proved);
  context.progress({ phase: "leave" });
  const row = { site: site.id, name: site.name, location: site.repository.site.location };
  await enter(parts, context, (roles) => leaveRoles(roles, row));
  const { backups, packs, bytes } = proved;
  const sites = { site: describeSite(site), successor: describeSite(primary) };
  return { ...sites, backups, packs, bytes, copied };
}

async function look(
  parts: MigrationParts,
  context: OperationContext,
  name: string,
): Promise<Ending> {
  const { sites } = parts;
  const site = await sites.repository(name, context.signal).catch((thrown: unknown) => {
    context.signal.throwIfAborted();
    throw withHint(toAppError(thrown), sites.last?.roles, name);
  });
  const primary = await sites.primary(context.signal);
  if (primary.id === site.id) {
    throw new AppError("refused", `Site ${name} is the primary, and cannot be retired.`, {
      guidance: `Migrate first: \`astacus migrate --from ${name} --to ANOTHER\`.`,
      context: { site: name, reason: "is-primary" },
    });
  }
  const now = sites.last;
  // Archives are not told of roles: one that was the primary once may believe it still.
  if (now?.roles !== undefined) {
    const how = { operation: context.id, signal: context.signal };
    await commitRoles(site.repository, bodyOfRoles(now.roles), how);
  }
  const rest = (now?.sites ?? []).flatMap(({ open, role }) =>
    open === undefined || role === "closed" || open.id === site.id || open.id === primary.id
      ? []
      : [open],
  );
  return { parts, context, site, primary, others: [primary, ...rest] };
}

/** What does not answer may be gone for good, and what is not configured too. */
function withHint(error: AppError, roles: Roles | undefined, name: string): AppError {
  if (roles?.sites.some((row) => row.name === name) !== true) return error;
  const { kind, message, retryable, context } = error;
  const hint = `If ${name} is gone for good: \`astacus site retire ${name} --lost\`.`;
  const guidance = error.guidance === undefined ? hint : `${error.guidance} ${hint}`;
  return new AppError(kind, message, { guidance, retryable, context, cause: error });
}

/** Looks at the primary, and for what is not there at the other sites. */
async function prove(
  ending: Ending,
  how: { readonly phase: string; readonly deep: boolean },
): Promise<Proved> {
  const { context, site } = ending;
  const { phase, deep } = how;
  let result: Proved | undefined;
  let bytes = 0;
  for (const other of ending.others) {
    // Two sites that end at once must not each be what proves the other.
    if ((await other.repository.catchUp(context.signal)).closed !== undefined) continue;
    let seen = 0;
    const proof = await proveCopy(sideOf(site), sideOf(other, { alone: true }), {
      deep,
      onProgress: (done) => {
        bytes += done.bytes - seen;
        seen = done.bytes;
        context.progress({ phase: `${phase} at ${other.name}`, bytes });
      },
      signal: context.signal,
    });
    const there = new Map(proof.unproved.map((one) => [one.id, one.why]));
    result = {
      backups: proof.backups,
      packs: (result?.packs ?? 0) + proof.packs,
      bytes: (result?.bytes ?? 0) + proof.bytes,
      unproved: (result?.unproved ?? proof.unproved).filter(({ id }) => there.has(id)),
    };
    if (result.unproved.length === 0) break;
  }
  if (result !== undefined) return result;
  throw new AppError("refused", `All sites but ${site.name} have been retired meanwhile.`, {
    guidance: "Nothing was removed. `astacus site list` shows what each site is.",
    context: { site: site.name, reason: "log-closed" },
  });
}

/** What landed between the first proof and the end of the log. */
async function copyTheRest({ parts, context, site, primary, others }: Ending): Promise<string[]> {
  const { signal } = context;
  for (const other of others) await other.repository.catchUp(signal);
  const open = others.filter(({ repository }) => repository.state.closed === undefined);
  const backups = backupsToHold(site.repository.state)
    .map(({ backup }) => backup)
    .filter((id) => !open.some(({ repository }) => repository.state.everIds.has(id)));
  if (backups.length === 0) return [];
  context.progress({ phase: "copy what came in between" });
  const report = await copyBackups(sideOf(site), sideOf(primary), {
    backups,
    operation: context.id,
    concurrency: PACKS_AT_ONCE,
    readBack: true,
    keepEveryBytes: parts.config.backup.keepEveryBytes,
    signal,
  });
  return report.backups.filter(({ state }) => state === "copied").map(({ name }) => name);
}

function mustBeProved({ name, repository }: OpenSite, { unproved }: Proved): void {
  if (unproved.length === 0) return;
  const shown = unproved.slice(0, NAMES_SHOWN).map((one) => `${one.name} (${one.why})`);
  const more = unproved.length > shown.length ? `, and ${unproved.length - shown.length} more` : "";
  const end =
    repository.state.closed === undefined
      ? "Nothing was changed."
      : "Its log has ended; nothing was removed from it.";
  throw new AppError(
    "refused",
    `Site ${name} holds what is not proved elsewhere: ${shown.join(", ")}${more}. ${end}`,
    {
      guidance:
        "Copy these with `astacus migrate --no-switch --backups …`, or delete them; `astacus " +
        "verify --deep` says what is damaged. Then run this again.",
      context: { site: name, reason: "not-proved", backups: unproved.length },
    },
  );
}
