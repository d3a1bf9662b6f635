/**
 * What a migration would do, before anything is written: which backups, how many objects, bytes and
 * requests, what it costs and how long it takes at the configured bandwidth, and what stands in the
 * way. Reads logs and pack lists.
 */
import { AppError, toAppError } from "../base/error.ts";
import type { CopyPlan, CopyPlanRow } from "../cas/copy/copy-plan.ts";
import { planCopy } from "../cas/copy/copy-plan.ts";
import type { CopySide } from "../cas/copy/copy-side.ts";
import { backupsToHold } from "../cas/copy/copy-side.ts";
import { findBackup } from "../cas/log/find-backup.ts";
import type { RepositoryState } from "../cas/log/state.ts";
import { transferTimeMs } from "../sites/limited-site.ts";
import type { SiteLimits } from "../sites/limited-site.ts";
import type { Money } from "../sites/prices.ts";
import { storagePrice } from "../sites/prices.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import type { TargetLocks } from "./migrate-locks.ts";
import { planTargetLocks } from "./migrate-locks.ts";
import { callNode } from "./network.ts";
import { helloAnswerSchema, PROTOCOL_VERSION } from "./protocol.ts";
import type { SiteRole } from "./site-roles.ts";
import type { ConfiguredSite } from "./site-set.ts";
import type { SourceHow } from "./site-sources.ts";
import type { OpenSite } from "./site-views.ts";
import type { SiteUsage } from "./usage.ts";
import { priceUsages } from "./usage.ts";

/** What is to be migrated. `undo` goes the other way, with the same names. */
export type MigrateRequest = {
  readonly from: string;
  readonly to: string;
  /** Names or ids; all unless given. */
  readonly backups?: readonly string[];
  /** Only backups that ended then or later, ISO 8601. */
  readonly since?: string;
  readonly undo?: boolean;
  /** Copies, and leaves the primary where it is. */
  readonly noSwitch?: boolean;
};

/** What a migration works with. */
export type MigrationParts = Pick<
  CoordinatorParts,
  "config" | "doors" | "sites" | "self" | "version"
>;

/** A site of a plan. */
export type MigrationSite = {
  readonly id: string;
  readonly name: string;
  readonly location: string;
};

/** What a migration would do. */
export type MigrationPlan = {
  /** Where it copies from and to; with `undo` these are the request's the other way round. */
  readonly from: MigrationSite;
  readonly to: MigrationSite;
  /** Whether `to` becomes the primary. */
  readonly switches: boolean;
  /** The primary is there already: a migration that was interrupted, or is done. */
  readonly isSwitched: boolean;
  /** What `to` is now. */
  readonly toRole: SiteRole | "closed" | undefined;
  /** Backups are left behind on purpose; the old site becomes an archive that is only read. */
  readonly isPartial: boolean;
  readonly backups: readonly CopyPlanRow[];
  /** Of these, how many are to be copied, and how many are there. */
  readonly copies: number;
  readonly present: number;
  readonly packs: number;
  readonly bytes: number;
  /** Both sites lie in one store, which copies packs by itself; nodes only read them back. */
  readonly isWithinStore: boolean;
  /** About, for each of the two sites, with money where prices are configured. */
  readonly usage: readonly SiteUsage[];
  /** What the new site costs a month for what is copied. */
  readonly storagePerMonth?: Money;
  /** At the configured bandwidth; undefined where nothing limits it. */
  readonly timeMs?: number;
  /** Where the new site locks what it gets. */
  readonly locks?: TargetLocks;
  readonly nodes: readonly {
    readonly name: string;
    /** Whether it helps to copy. */
    readonly helps: boolean;
    readonly why?: string;
  }[];
  /** Why it would be refused. */
  readonly refusals: readonly string[];
};

/** The two sites of a migration, open. */
export type MigrationSides = { readonly from: OpenSite; readonly to: OpenSite };

const HELLO_TIMEOUT_MS = 10_000;

/** Plans; changes nothing. Throws what makes a migration impossible between these two sites. */
export async function planMigration(
  parts: MigrationParts,
  request: MigrateRequest,
  signal: AbortSignal,
): Promise<MigrationPlan> {
  const sides = await openSides(parts, request, signal);
  const { from, to } = sides;
  const now = await parts.sites.look(signal);
  const roleOf = (site: OpenSite) => now.sites.find(({ id }) => id === site.id)?.role;
  const isSwitched = roleOf(to) === "primary";
  const switches = request.noSwitch !== true && roleOf(from) === "primary";
  const choice = choose(from.repository.state, request, parts.config.cluster);
  const copy = await planCopy(sideOf(from), sideOf(to), {
    ...choice,
    keepEveryBytes: parts.config.backup.keepEveryBytes,
    signal,
  });
  const nodes = await askNodes(parts, to, signal);
  const [source, target] = [configured(parts, from.name), configured(parts, to.name)];
  const timeMs = timeOf(copy, {
    source: source?.limits,
    target: target?.limits,
    nodes: Math.max(1, nodes.filter(({ node }) => node.helps).length),
    nowMs: parts.doors.clock.now(),
  });
  const locks = planTargetLocks(to, copy, target);
  return {
    from: describeSite(from),
    to: describeSite(to),
    switches,
    isSwitched,
    toRole: roleOf(to),
    isPartial: isPartial(request),
    backups: copy.backups,
    copies: copy.backups.filter(({ state }) => state === "copy").length,
    present: copy.backups.filter(({ state }) => state === "there").length,
    packs: copy.packs,
    bytes: copy.bytes,
    isWithinStore: copy.isWithinStore,
    usage: priceUsages(usageOfCopy(copy, from.name, to.name), [source, target].filter(isKnown)),
    ...(target?.prices === undefined
      ? {}
      : { storagePerMonth: storagePrice(target.prices, copy.bytes) }),
    ...(timeMs > 0 ? { timeMs } : {}),
    ...(locks === undefined ? {} : { locks }),
    nodes: nodes.map(({ node }) => node),
    refusals: [
      ...nothingChosen(request, copy, sides),
      ...(switches ? nodes.flatMap(({ refusal }) => refusal ?? []) : []),
    ],
  };
}

/** A choice that leaves the new site with no backup at all is a slip: a date of next year, say. */
function nothingChosen(
  request: MigrateRequest,
  { backups }: CopyPlan,
  { from, to }: MigrationSides,
): string[] {
  if (!isPartial(request)) return [];
  if (backups.some(({ state }) => state !== "forgotten-there")) return [];
  if (backups.length > 0) {
    return [`0 backups: all that were chosen were forgotten at ${to.name}, and stay so.`];
  }
  const since = request.since === undefined ? "" : ` that ended at ${request.since} or later`;
  return [`0 backups: of those chosen ${from.name} has none${since}.`];
}

/** Opens both sites; with `undo` they change places. Nothing is written to either. */
export async function openSides(
  parts: MigrationParts,
  request: MigrateRequest,
  signal: AbortSignal,
): Promise<MigrationSides> {
  const isUndo = request.undo === true;
  const [source, target] = isUndo ? [request.to, request.from] : [request.from, request.to];
  if (source === target) throw new AppError("usage", "A site cannot be migrated to itself.");
  const from = await openOne(parts, source, signal);
  const to = await openOne(parts, target, signal);
  const { closed } = to.repository.state;
  if (closed === undefined) return { from, to };
  throw new AppError("refused", `The log of site ${to.name} has ended: ${closed.reason}.`, {
    guidance: "A retired site is read, and never written again. Make a new one and migrate there.",
    context: { site: to.name, reason: "log-closed" },
  });
}

/** The ids that a request chooses, or all. */
export function choose(
  state: RepositoryState,
  request: Pick<MigrateRequest, "backups" | "since">,
  cluster: string,
): { readonly backups?: readonly string[]; readonly since?: number } {
  const { backups, since } = request;
  return {
    ...(backups === undefined
      ? {}
      : { backups: backups.map((wanted) => findBackup(state, wanted, cluster).backup) }),
    ...(since === undefined ? {} : { since: Date.parse(since) }),
  };
}

/** True if a request leaves backups behind on purpose. */
export function isPartial({ backups, since }: Pick<MigrateRequest, "backups" | "since">): boolean {
  return backups !== undefined || since !== undefined;
}

/** The ids that are to be copied now: of those chosen, or held at all, what `to` never had. */
export function idsToCopy(
  { from, to }: MigrationSides,
  choice: { readonly backups?: readonly string[]; readonly since?: number },
): string[] {
  const { backups, since = Number.NEGATIVE_INFINITY } = choice;
  const target = to.repository.state;
  return backupsToHold(from.repository.state)
    .filter((one) => backups === undefined || backups.includes(one.backup))
    .filter((one) => Date.parse(one.ended) >= since && !target.everIds.has(one.backup))
    .map(({ backup }) => backup);
}

/** A site as a side of a copy; of a proof, alone: what is wrong there must not be read elsewhere. */
export function sideOf(site: OpenSite, how?: SourceHow): CopySide {
  return { repository: site.repository, source: site.openSource(how) };
}

/** A site by name and place. */
export function describeSite(site: OpenSite): MigrationSite {
  return { id: site.id, name: site.name, location: site.repository.site.location };
}

async function openOne(
  { sites }: MigrationParts,
  name: string,
  signal: AbortSignal,
): Promise<OpenSite> {
  try {
    return await sites.repository(name, signal);
  } catch (thrown) {
    const error = toAppError(thrown);
    // A folder that is not there, under a name that is.
    const isMissing = error.kind === "not-found" && sites.names.includes(name);
    if (!isMissing && error.context["reason"] !== "no-repository") throw error;
    throw new AppError("refused", `Site ${name} holds no repository yet: ${error.message}`, {
      guidance: `Make it a part of this one first: \`astacus site init ${name} -c FILE\`.`,
      context: { site: name, reason: "no-repository" },
      cause: error,
    });
  }
}

type AskedNode = { readonly node: MigrationPlan["nodes"][number]; readonly refusal?: string };

/**
 * Who can help. A node that answers and does not know the new site would refuse every backup after
 * the switch; one that is down says so itself when it comes back.
 */
async function askNodes(
  { config, doors, version }: MigrationParts,
  to: OpenSite,
  signal: AbortSignal,
): Promise<AskedNode[]> {
  const site = { id: to.id, called: `${to.name} (${to.repository.site.location})` };
  const body = { protocol: PROTOCOL_VERSION, cluster: config.cluster, version, site };
  return await Promise.all(
    config.nodes.map(async (node): Promise<AskedNode> => {
      const { name } = node;
      try {
        const call = { method: "hello", body, answer: helloAnswerSchema };
        const how = { timeoutMs: HELLO_TIMEOUT_MS, patienceMs: 0, signal };
        await callNode(doors, node, call, how);
        return { node: { name, helps: true } };
      } catch (thrown) {
        signal.throwIfAborted();
        const { message, context } = toAppError(thrown);
        const lacks = context["reason"] === "site-unknown";
        const refusal = `${message} Backups would fail there after the switch.`;
        return { node: { name, helps: false, why: message }, ...(lacks ? { refusal } : {}) };
      }
    }),
  );
}

/**
 * Each pack is read once, sent once and read back once, or else copied by the store and read once;
 * the rest is logs and manifests.
 */
function usageOfCopy(copy: CopyPlan, from: string, to: string): SiteUsage[] {
  const copies = copy.backups.filter(({ state }) => state === "copy").length;
  const passed = copy.isWithinStore ? 0 : copy.bytes;
  const read = (copy.isWithinStore ? 0 : copy.packs) + copies;
  const { get, put, head } = copy.requests;
  const none = { get: 0, put: 0, head: 0, delete: 0, list: 0 };
  return [
    { site: from, requests: { ...none, get: read }, bytesRead: passed, bytesWritten: 0 },
    {
      site: to,
      requests: { ...none, get: Math.max(0, get - read), put, head },
      bytesRead: copy.bytes,
      bytesWritten: passed,
    },
  ];
}

/** Reading, sending and reading back go on at once: the slowest of them counts. */
function timeOf(
  { bytes, isWithinStore }: CopyPlan,
  how: {
    readonly source: SiteLimits | undefined;
    readonly target: SiteLimits | undefined;
    readonly nodes: number;
    readonly nowMs: number;
  },
): number {
  const share = { bytes: bytes / how.nodes, nowMs: how.nowMs };
  const { source = {}, target = {} } = how;
  const readBackMs = transferTimeMs(target, "download", share);
  if (isWithinStore) return Math.round(readBackMs);
  return Math.round(
    Math.max(
      transferTimeMs(source, "download", share),
      transferTimeMs(target, "upload", share),
      readBackMs,
    ),
  );
}

function configured({ sites }: MigrationParts, name: string): ConfiguredSite | undefined {
  return sites.configured.find((site) => site.name === name);
}

function isKnown<T>(value: T | undefined): value is T {
  return value !== undefined;
}
