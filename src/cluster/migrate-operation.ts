/**
 * A migration: the backups of one site are brought to another, every object read back, and then one
 * `role` entry makes that one the primary, while backups go on. Each step looks at what is there and
 * does the rest; nothing is remembered anywhere but in the two logs. So the same command goes on
 * after a crash anywhere, and two that run at once do no harm.
 */
import { AppError } from "../base/error.ts";
import type { CopyReport } from "../cas/copy/copy-backups.ts";
import { copyBackups } from "../cas/copy/copy-backups.ts";
import { commitRoles } from "../cas/copy/roles.ts";
import type { EntryBodies } from "../cas/log/entry.ts";
import type { Roles } from "../cas/log/state.ts";
import { PACKS_AT_ONCE } from "./copy-packs.ts";
import { callNode } from "./network.ts";
import type {
  MigrateRequest,
  MigrationParts,
  MigrationSides,
  MigrationSite,
} from "./migrate-plan.ts";
import { choose, describeSite, idsToCopy, isPartial, openSides } from "./migrate-plan.ts";
import { planMigration, sideOf } from "./migrate-plan.ts";
import { joinRoles, switchRoles } from "./migrate-roles.ts";
import type { OperationContext } from "./operations.ts";
import { helloAnswerSchema, PROTOCOL_VERSION } from "./protocol.ts";
import type { OpenSite, SitesNow } from "./site-views.ts";
import { SpreadTransfer } from "./spread-transfer.ts";

/** What a migration did. */
export type MigrationResult = {
  readonly from: MigrationSite;
  readonly to: MigrationSite;
  /** Whether `to` is the primary now. */
  readonly switched: boolean;
  /** Backups that were copied, by name. */
  readonly copied: readonly string[];
  readonly packs: number;
  /** Of these, found there under the birth that they would have got. */
  readonly packsFound: number;
  readonly bytes: number;
  /** Backups that run now and may land on the old site. */
  readonly runningStill: readonly string[];
};

/** Backups go on meanwhile: after so many rounds the rest is left to the one after the switch. */
const ROUND_COUNT_MAX = 10;
/** Somebody else may enter roles at the same time. */
const ROLE_TRY_COUNT_MAX = 5;
/** How long a backup that began on the old site is waited for after the switch. */
const RUNNING_WAIT_MS = 600_000;
const RUNNING_POLL_MS = 2_000;
const HELLO_TIMEOUT_MS = 10_000;

type Total = { copied: string[]; packs: number; packsFound: number; bytes: number };

type Running = {
  readonly parts: MigrationParts;
  readonly context: OperationContext;
  readonly sides: MigrationSides;
  readonly request: MigrateRequest;
  readonly total: Total;
  /** What the source had when this began; newer ones go over in any case. */
  readonly beganAt: number;
  readonly spread: SpreadTransfer;
};

/** Migrates; throws before anything is written if the plan has refusals. */
export async function runMigration(
  parts: MigrationParts,
  context: OperationContext,
  request: MigrateRequest,
): Promise<MigrationResult> {
  const { signal } = context;
  context.progress({ phase: "plan" });
  const plan = await planMigration(parts, request, signal);
  if (plan.refusals.length > 0) {
    throw new AppError("refused", `The migration was refused: ${plan.refusals.join(" ")}`, {
      guidance:
        plan.copies + plan.present === 0 && plan.isPartial
          ? "Choose others with --since or --backups. Nothing was changed."
          : "Add the site to the configuration of all nodes and reload them; then run it again.",
      context: { reason: "plan-refused" },
    });
  }
  const sides = await openSides(parts, request, signal);
  let bytes = 0;
  context.progress({ phase: "join", bytesTotal: plan.bytes, total: plan.copies });
  const spread = new SpreadTransfer({
    parts,
    context,
    ...sides,
    onBytes(more) {
      bytes += more;
      context.progress({ bytes, bytesTotal: Math.max(plan.bytes, bytes) });
    },
  });
  const running: Running = {
    parts,
    context,
    sides,
    request,
    total: { copied: [], packs: 0, packsFound: 0, bytes: 0 },
    beganAt: sides.from.repository.state.sequence,
    spread,
  };
  const isBulk = plan.copies > 0 && (plan.toRole === "archive" || isEmpty(sides.to));
  await join(running, isBulk || plan.isPartial ? "archive" : "mirror");
  await copyUntilNothingIsMissing(running);
  if (isBulk && !plan.isPartial) {
    await join(running, "mirror");
    await copyUntilNothingIsMissing(running);
  }
  if (plan.switches) await switchPrimary(running);
  if (plan.switches || plan.isSwitched) await tellOldSite(running);
  const runningStill = plan.switches || plan.isSwitched ? await catchUp(running) : [];
  const { copied, packs, packsFound } = running.total;
  return {
    from: describeSite(sides.from),
    to: describeSite(sides.to),
    switched: plan.switches || plan.isSwitched,
    copied,
    packs,
    packsFound,
    bytes: running.total.bytes,
    runningStill,
  };
}

/** The new site becomes one that backups reach too, or is held free of them. */
async function join({ parts, context, sides }: Running, as: "mirror" | "archive"): Promise<void> {
  const how = { as, isEmpty: isEmpty(sides.to) };
  await enter(parts, context, (roles, now) => {
    if (roles !== undefined) return joinRoles(roles, rowsOf(sides), how);
    // Before anybody has spoken it is the configuration that names the primary, whatever is copied:
    // of `--undo` where nothing was migrated yet the source is the new site.
    const from = mustBePrimary(now);
    return from.id === sides.to.id ? undefined : joinRoles(roles, rowsOf({ ...sides, from }), how);
  });
}

function mustBePrimary({ sites }: SitesNow): OpenSite {
  const view = sites.find(({ role }) => role === "primary");
  if (view?.open !== undefined) return view.open;
  throw view?.error ?? new AppError("unavailable", "The primary does not answer.");
}

function isEmpty({ repository }: OpenSite): boolean {
  return repository.state.everIds.size === 0;
}

/** Backups that end meanwhile are copied in the next round. */
async function copyUntilNothingIsMissing(running: Running): Promise<void> {
  for (let round = 1; round <= ROUND_COUNT_MAX; round += 1) {
    if (!(await copyOnce(running, "copy"))) return;
  }
}

/** Copies what is missing now; false if nothing was. */
async function copyOnce(running: Running, phase: string): Promise<boolean> {
  const { parts, context, sides, total, spread } = running;
  const { signal } = context;
  const { from, to } = sides;
  await from.repository.catchUp(signal);
  await to.repository.catchUp(signal);
  const backups = idsNow(running);
  if (backups.length === 0) return false;
  const report = await copyBackups(sideOf(from), sideOf(to), {
    backups,
    operation: context.id,
    concurrency: PACKS_AT_ONCE,
    readBack: true,
    keepEveryBytes: parts.config.backup.keepEveryBytes,
    transfer: spread.transfer,
    onProgress: ({ backup, backupsDone, backupsTotal }) =>
      context.progress({
        phase: `${phase} ${backup.name} (${Math.min(backupsDone + 1, backupsTotal)} of ${backupsTotal})`,
        handled: backupsDone,
        total: backupsTotal,
      }),
    signal,
  });
  note(total, report);
  mustBeWhole(report, from);
  return report.backups.some(({ state }) => state === "copied");
}

/**
 * What was chosen, and with a choice also what has landed since this began, or since the entry that
 * brought the new site in or made it the primary: an interrupted run began before it.
 */
function idsNow({ parts, sides, request, beganAt }: Running): string[] {
  const { state } = sides.from.repository;
  const all = idsToCopy(sides, {});
  if (!isPartial(request)) return all;
  const chosen = new Set(idsToCopy(sides, choose(state, request, parts.config.cluster)));
  const knowsNew = state.roles?.sites.some(({ site }) => site === sides.to.id) === true;
  const since = knowsNew ? Math.min(beganAt, state.roles?.sequence ?? beganAt) : beganAt;
  return all.filter((id) => chosen.has(id) || (state.backups.get(id)?.sequence ?? 0) > since);
}

/** One entry switches the primary: first where it counts from then on, then on the other sites. */
async function switchPrimary({ parts, context, sides, request }: Running): Promise<void> {
  context.progress({ phase: "switch" });
  const how = { isPartial: isPartial(request) };
  await enter(parts, context, (roles) => switchRoles(roles, rowsOf(sides), how));
  context.say(`${sides.to.name} is the primary now.`);
}

/**
 * Roles are not written to archives, but a node that knows the old site alone must learn there that
 * it may not write to it any more.
 */
async function tellOldSite({ parts, context, sides }: Running): Promise<void> {
  const roles = parts.sites.last?.roles;
  if (roles === undefined) return;
  const { sequence: _, ...body } = roles;
  await commitRoles(sides.from.repository, body, { operation: context.id, signal: context.signal });
}

/**
 * What landed on the old site in between is copied, that of backups too which had begun there.
 * Returns the nodes on which such a backup runs still when nobody waits for it any longer.
 */
async function catchUp(running: Running): Promise<string[]> {
  const { parts, context } = running;
  const { clock } = parts.doors;
  const until = clock.monotonic() + RUNNING_WAIT_MS;
  const seen = await nodesInBackup(parts, context.signal);
  let waiting = seen;
  if (seen.size > 0) context.say("A backup runs: what it leaves on the old site is waited for.");
  while (waiting.size > 0 && clock.monotonic() < until) {
    context.progress({ phase: "wait for a backup that began before the switch" });
    await clock.sleep(RUNNING_POLL_MS, context.signal);
    const now = await nodesInBackup(parts, context.signal);
    // Another backup began after the switch, and on the new site.
    waiting = new Map([...waiting].filter(([node, operation]) => now.get(node) === operation));
  }
  for (let round = 1; round <= ROUND_COUNT_MAX; round += 1) {
    if (!(await copyOnce(running, "catch up"))) break;
  }
  return [...waiting.keys()];
}

/** Nodes that are leased to a backup, with its operation; those that do not answer are none. */
async function nodesInBackup(
  { config, doors, version }: MigrationParts,
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const body = { protocol: PROTOCOL_VERSION, cluster: config.cluster, version };
  const call = { method: "hello", body, answer: helloAnswerSchema };
  const how = { timeoutMs: HELLO_TIMEOUT_MS, patienceMs: 0, signal };
  const found = new Map<string, string>();
  await Promise.all(
    config.nodes.map(async (node) => {
      try {
        const { lease } = await callNode(doors, node, call, how);
        if (lease?.kind === "backup") found.set(node.name, lease.operation);
      } catch {
        signal.throwIfAborted();
      }
    }),
  );
  return found;
}

/** Enters roles until they are as decided; `decide` gets the best that any site has, and the look. */
export async function enter(
  { sites }: Pick<MigrationParts, "sites">,
  context: Pick<OperationContext, "signal">,
  decide: (roles: Roles | undefined, now: SitesNow) => EntryBodies["role"] | undefined,
): Promise<void> {
  const { signal } = context;
  for (let count = 1; count <= ROLE_TRY_COUNT_MAX; count += 1) {
    const now = await sites.look(signal);
    const body = decide(now.roles, now);
    if (body === undefined) {
      // What another coordinator entered, and died before it told the other sites.
      if (now.roles !== undefined) await sites.roles(signal);
      return;
    }
    await sites.enterRoles(body, signal);
  }
  throw new AppError("conflict", "The roles of the sites are being changed by somebody else.", {
    guidance: "Run the command again when no other migration runs; it goes on where it is.",
    retryable: true,
  });
}

function note(total: Total, report: CopyReport): void {
  const copied = report.backups.filter(({ state }) => state === "copied");
  total.copied.push(...copied.map(({ name }) => name));
  total.packs += report.packs;
  total.packsFound += report.packsFound;
  total.bytes += report.bytes;
}

/** A switch leaves nothing behind that nobody can read there. */
function mustBeWhole(report: CopyReport, from: OpenSite): void {
  const failed = report.backups.filter(({ state }) => state === "failed");
  const first = failed[0];
  if (first === undefined) return;
  const names = failed.map(({ name }) => name).join(", ");
  throw new AppError(
    "damaged",
    `Site ${from.name} does not give these backups whole: ${names}. ${first.error?.message ?? ""}`,
    {
      guidance:
        "All others were copied, and nothing was switched. `astacus verify --deep` shows what is " +
        "wrong; delete these backups, or name the others with --backups, and run it again.",
      context: { site: from.name, reason: "not-whole" },
    },
  );
}

function rowsOf({ from, to }: MigrationSides) {
  const row = (site: OpenSite) => ({
    site: site.id,
    name: site.name,
    location: site.repository.site.location,
  });
  return { from: row(from), to: row(to) };
}
