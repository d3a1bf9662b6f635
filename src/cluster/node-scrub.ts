/**
 * The scrubber of a member: which sites it reads, whom it asks, what it does with damage; and a pass
 * by hand as an operation.
 */
import type { Database } from "bun:sqlite";
import type { Doors } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { drawId } from "../cas/format/ids.ts";
import type { MemberConfig } from "./member-config.ts";
import { callNode } from "./network.ts";
import type { OperationContext } from "./operations.ts";
import type { JsonValue } from "./protocol.ts";
import { distrustFaults, faultsOf, repairFaults } from "./repair.ts";
import { ScrubJournal, scrubAnswerSchema } from "./scrub-journal.ts";
import { Scrubber } from "./scrub.ts";
import type { ScrubEvent, ScrubSite } from "./scrub.ts";
import type { SiteSet } from "./site-set.ts";

/** How long another node may take to tell of its scrubbing. */
const ASK_TIMEOUT_MS = 5_000;
/** How old the look may be that tells which sites answer. */
const LOOK_AGE_MS = 60_000;

/** What the scrubber of a member is made of. */
export type NodeScrubOptions = {
  readonly config: MemberConfig;
  readonly doors: Pick<Doors, "clock" | "network" | "random">;
  readonly sites: SiteSet;
  readonly database: Database;
  readonly isBusy: () => boolean;
  readonly onEvent?: (event: ScrubEvent) => void;
};

/** Makes the scrubber of a member; it reads nothing before somebody runs it. */
export function openScrubber(options: NodeScrubOptions): Scrubber {
  const { config, doors, sites, database, isBusy, onEvent } = options;
  return new Scrubber({
    clock: doors.clock,
    journal: new ScrubJournal(database),
    node: config.node,
    nodes: config.nodes.map(({ name }) => name),
    settings: config.scrub,
    sites: async (signal): Promise<ScrubSite[]> => {
      const now = await sites.look(signal, { maxAgeMs: LOOK_AGE_MS });
      return now.sites.flatMap(({ open }) =>
        open === undefined ? [] : [{ ...open, opener: open.openSource({ alone: true }).opener }],
      );
    },
    isBusy,
    repair: async (site, problems, signal) => {
      const faults = faultsOf(site.id, problems);
      if (config.repair === false) {
        await distrustFaults(sites, faults, signal);
        return 0;
      }
      const reports = await repairFaults(sites, faults, {
        operation: drawId(doors.random),
        signal,
      });
      return reports.reduce((sum, { repaired }) => sum + repaired, 0);
    },
    ask: async (name, signal) => {
      const address = config.nodes.find((node) => node.name === name);
      if (address === undefined) throw new AppError("not-found", `There is no node ${name}.`);
      const call = { method: "scrub", body: {}, answer: scrubAnswerSchema };
      const how = { timeoutMs: ASK_TIMEOUT_MS, patienceMs: 0, signal };
      return await callNode(doors, address, call, how);
    },
    ...(onEvent === undefined ? {} : { onEvent }),
  });
}

/** Which sites a pass by hand reads; all that answer, unless named. */
export type ScrubRequest = { readonly sites?: readonly string[] };

/** Reads every pack of the sites once; what is wrong is in the report, and repaired as configured. */
export async function runScrubOperation(
  scrubber: Scrubber,
  context: OperationContext,
  request: ScrubRequest,
): Promise<JsonValue> {
  const reports = await scrubber.pass({
    ...(request.sites === undefined ? {} : { sites: request.sites }),
    signal: context.signal,
    onProgress: (site, readBytes, position) =>
      context.progress({
        phase: `reading ${site}, ${Math.floor(position * 100)} %`,
        readBytes,
      }),
  });
  for (const name of request.sites ?? []) {
    if (reports.some(({ site }) => site === name)) continue;
    throw new AppError("unavailable", `Site ${name} does not answer.`, {
      guidance: "`astacus status` says why.",
    });
  }
  return { ok: reports.every(({ ok }) => ok), sites: reports } as unknown as JsonValue;
}
