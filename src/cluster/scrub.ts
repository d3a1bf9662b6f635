/**
 * Rolling verification: each node reads its share of the packs of each site, bit by bit within a
 * budget, and begins again at the end. Shares are by the node's place among the names, so nobody has
 * to agree on anything; a node that is away leaves its share unread, and what is said to be proved
 * stays as old as that. Whoever has the first share begins each cycle with what is no pack (the log,
 * segments, manifests, key objects): without them no pack can be found. A step is small, journaled, and
 * none runs beside a backup or a restore.
 */
import type { Clock } from "../base/doors.ts";
import { toAppError } from "../base/error.ts";
import type { FrameOpener } from "../cas/keys/frame-opener.ts";
import type { Repository } from "../cas/log/repository.ts";
import { scrubPosition, scrubStep } from "../cas/read/scrub.ts";
import type { ScrubShare, ScrubStep } from "../cas/read/scrub.ts";
import type { VerifyProblem } from "../cas/read/verify-problems.ts";
import { indexProblemsOf, verifySite } from "../cas/read/verify-site.ts";
import { figuresOf } from "./scrub-figures.ts";
import type { ScrubFigures } from "./scrub-figures.ts";
import type { ScrubAnswer, ScrubCycle, ScrubRow, ScrubStart } from "./scrub-journal.ts";
import type { ScrubJournal } from "./scrub-journal.ts";

/** How much is read, of which sites. */
export type ScrubSettings = {
  /** All nodes together, for each site. */
  readonly pace: { readonly bytesPerDay: number } | { readonly cycleMs: number };
  /** Names; unless told, all that the node reaches. */
  readonly sites?: readonly string[];
};

/** A site that can be scrubbed. */
export type ScrubSite = {
  readonly name: string;
  readonly id: string;
  readonly repository: Repository;
  /** Of an encrypted one. */
  readonly opener?: FrameOpener | undefined;
};

/** What a scrubber works with. */
export type ScrubberOptions = {
  readonly clock: Clock;
  readonly journal: ScrubJournal;
  readonly node: string;
  /** Names of all nodes, this one among them. */
  readonly nodes: readonly string[];
  /** Nothing is read unless asked for by hand, without it. */
  readonly settings: ScrubSettings | undefined;
  /** The sites that answer. */
  readonly sites: (signal: AbortSignal) => Promise<readonly ScrubSite[]>;
  /** True while a backup or a restore runs here. */
  readonly isBusy: () => boolean;
  /** Repairs what can be repaired; returns how many packs were. */
  readonly repair: (
    site: ScrubSite,
    problems: readonly VerifyProblem[],
    signal: AbortSignal,
  ) => Promise<number>;
  /** What another node says of its scrubbing. */
  readonly ask: (node: string, signal: AbortSignal) => Promise<ScrubAnswer>;
  /** What one step reads; less in tests. */
  readonly stepSizeBytes?: number;
  /** Told of whatever is found, and of steps that failed. */
  readonly onEvent?: (event: ScrubEvent) => void;
};

/** What somebody should hear of. */
export type ScrubEvent =
  | {
      readonly kind: "problems";
      readonly site: string;
      readonly problems: readonly VerifyProblem[];
    }
  | { readonly kind: "failed"; readonly site: string; readonly error: Error };

/** What a pass by hand has found at one site. */
export type ScrubReport = {
  readonly site: string;
  readonly ok: boolean;
  readonly packs: number;
  readonly bytes: number;
  /** At most a thousand. */
  readonly problems: readonly VerifyProblem[];
  readonly problemCount: number;
  readonly repaired: number;
};

/** A step is over in seconds, and a restart loses no more. */
const STEP_SIZE_BYTES = 16 * 1024 * 1024;
/** Between two looks whether something is due. */
const LOOK_MS = 30_000;
/** After a step that failed. */
const FAILED_WAIT_MS = 10 * 60_000;
const DAY_MS = 24 * 3_600_000;
/** No cycle follows the last one sooner, however small a site is. */
const CYCLE_MS_MIN = DAY_MS;
/** Between two questions to the other nodes, and two looks at sites of which nothing is due. */
const ASK_EVERY_MS = 3_600_000;
const REPORTED_PROBLEM_COUNT_MAX = 1000;

const WHOLE: ScrubShare = { rank: 0, count: 1 };
const NOTHING = { packs: 0, bytes: 0, problems: 0, repaired: 0 };

/** The scrubbing of one node. */
export class Scrubber {
  readonly #options: ScrubberOptions;
  readonly #share: ScrubShare;
  #askedMs = Number.NEGATIVE_INFINITY;
  /** The sites of the last look, by id: while nothing of them is due, nobody is asked. */
  #known: { readonly ids: readonly string[]; readonly atMs: number } | undefined;

  constructor(options: ScrubberOptions) {
    this.#options = options;
    const names = options.nodes.toSorted();
    this.#share = { rank: Math.max(0, names.indexOf(options.node)), count: names.length };
  }

  /** Reads within the budget until the signal ends it. */
  async run(signal: AbortSignal): Promise<void> {
    if (this.#options.settings === undefined) return;
    while (!signal.aborted) {
      const waitMs = await this.turn(signal);
      await this.#options.clock.sleep(waitMs, signal).catch(() => undefined);
    }
  }

  /** Does what is due; returns how long nothing will be, at most `LOOK_MS`. */
  async turn(signal: AbortSignal): Promise<number> {
    if (this.#options.isBusy() || !this.#isAnyDue()) return LOOK_MS;
    try {
      await this.#askPeers(signal);
      const waits: number[] = [LOOK_MS];
      for (const site of await this.#wantedSites(signal)) {
        if (signal.aborted || this.#options.isBusy()) break;
        waits.push(await this.#turnOf(site, signal));
      }
      return Math.max(1, Math.min(...waits));
    } catch (thrown) {
      if (!signal.aborted) this.#tell({ kind: "failed", site: "", error: toAppError(thrown) });
      return LOOK_MS;
    }
  }

  /** Reads all packs of the sites (of all that answer, unless named), whatever the budget says. */
  async pass(options: {
    readonly sites?: readonly string[];
    readonly signal: AbortSignal;
    readonly onProgress?: (site: string, readBytes: number, position: number) => void;
  }): Promise<ScrubReport[]> {
    const { signal, sites: names, onProgress } = options;
    const sites = await this.#options.sites(signal);
    const reports: ScrubReport[] = [];
    for (const site of sites) {
      if (names !== undefined && !names.includes(site.name)) continue;
      reports.push(await this.#passOf(site, { signal, onProgress }));
    }
    return reports;
  }

  /** A backup was read whole by `verify --deep`. */
  noteVerified(site: string, backup: string): void {
    this.#options.journal.addVerified(site, backup, this.#options.clock.now());
  }

  /** A backup was verified, and is not right: no earlier proof of it counts, here or elsewhere. */
  noteDamaged(site: string, backup: string): void {
    this.#options.journal.addDamaged(site, backup, this.#options.clock.now());
  }

  /** Tells when a backup was last known to be right at a site, in ms since 1970. */
  prover(
    site: string,
  ): (backup: { readonly id: string; readonly sequence: number }) => number | undefined {
    const { journal } = this.#options;
    const proofs = this.#proofs(site);
    const verified = Map.groupBy(
      [journal.listVerified(), ...this.#peers().map((peer) => peer.verified)]
        .flat()
        .filter((one) => one.site === site),
      ({ backup }) => backup,
    );
    const damaged = [journal.listDamaged(), ...this.#peers().map((peer) => peer.damaged)]
      .flat()
      .filter((one) => one.site === site);
    return ({ id, sequence }) => {
      const finds = damaged.filter(({ backup }) => backup === id).map(({ atMs }) => atMs);
      const damagedMs = Math.max(Number.NEGATIVE_INFINITY, ...finds);
      const times = [
        ...proofs.filter((one) => one.sequence >= sequence).map(({ startedMs }) => startedMs),
        ...(verified.get(id) ?? []).map(({ atMs }) => atMs),
      ].filter((provedMs) => provedMs > damagedMs);
      return times.length === 0 ? undefined : Math.max(...times);
    };
  }

  /** What this node tells others. */
  answer(): ScrubAnswer {
    const { journal } = this.#options;
    const sites = journal.listSites().map((site) => {
      const row = journal.get(site, "share");
      const whole = journal.get(site, "whole")?.clean;
      return {
        site,
        share: row?.share ?? this.#share,
        ...(row?.clean === undefined ? {} : { clean: row.clean }),
        ...(whole === undefined ? {} : { whole }),
        problems: (row?.cycle?.problems ?? 0) + (row?.last?.problems ?? 0),
      };
    });
    return { sites, verified: journal.listVerified(), damaged: journal.listDamaged() };
  }

  /** How the scrubbing of each site stands on this node. */
  figures(): ScrubFigures[] {
    const { journal } = this.#options;
    return journal.listSites().flatMap((site) => {
      const share = journal.get(site, "share");
      const whole = journal.get(site, "whole");
      const proofs = this.#proofs(site);
      return figuresOf({ share, whole, proofs }) ?? [];
    });
  }

  async #wantedSites(signal: AbortSignal): Promise<readonly ScrubSite[]> {
    const { settings, sites } = this.#options;
    const names = settings?.sites;
    const open = await sites(signal);
    const wanted = names === undefined ? open : open.filter(({ name }) => names.includes(name));
    const atMs = this.#options.clock.monotonic();
    this.#known = { ids: wanted.map(({ id }) => id), atMs };
    return wanted;
  }

  /** False if all sites that were there at the last look can wait, and that was not long ago. */
  #isAnyDue(): boolean {
    const { clock, journal } = this.#options;
    if (this.#known === undefined) return true;
    if (clock.monotonic() - this.#known.atMs >= ASK_EVERY_MS) return true;
    const nowMs = clock.now();
    return this.#known.ids.some((id) => {
      const row = journal.get(id, "share");
      return row === undefined || row.dueMs <= nowMs || row.dueMs - nowMs > row.waitMs;
    });
  }

  /** One step of a site if it is due; returns how long none will be. */
  async #turnOf(site: ScrubSite, signal: AbortSignal): Promise<number> {
    const { clock, journal } = this.#options;
    const row = this.#rowOf(site);
    const nowMs = clock.now();
    const waitMs = row.dueMs - nowMs;
    if (waitMs > row.waitMs) {
      // A wall clock that was set back must not stop us for as long as it went.
      journal.set(site.id, "share", { ...row, dueMs: nowMs + row.waitMs });
      return row.waitMs;
    }
    if (waitMs > 0) return waitMs;
    try {
      const next = await this.#stepOf(site, row, signal);
      journal.set(site.id, "share", next);
      return next.waitMs;
    } catch (thrown) {
      if (signal.aborted) return LOOK_MS;
      journal.set(site.id, "share", {
        ...row,
        dueMs: clock.now() + FAILED_WAIT_MS,
        waitMs: FAILED_WAIT_MS,
      });
      this.#tell({ kind: "failed", site: site.name, error: toAppError(thrown) });
      return FAILED_WAIT_MS;
    }
  }

  async #stepOf(site: ScrubSite, row: ScrubRow, signal: AbortSignal): Promise<ScrubRow> {
    const { clock } = this.#options;
    const cycle = row.cycle ?? (await this.#begin(site, signal));
    const step = await this.#read(site, { cycle, share: this.#share }, signal);
    const done = await this.#add(site, { cycle, step }, signal);
    const bytesTotal = row.bytesTotal + step.bytes;
    const nowMs = clock.now();
    const waitMs = this.#waitAfter(cycle, { step, nowMs });
    const next = { ...row, name: site.name, bytesTotal, waitMs, dueMs: nowMs + waitMs };
    if (step.after !== undefined) return { ...next, cycle: { ...done, after: step.after } };
    return ended(next, done, nowMs);
  }

  /** So that the budget is kept whatever a step has read, and a restart earns nothing. */
  #waitAfter(
    cycle: ScrubCycle,
    { step, nowMs }: { readonly step: ScrubStep; readonly nowMs: number },
  ): number {
    const { settings } = this.#options;
    if (settings === undefined) return LOOK_MS;
    const { pace } = settings;
    const isEnd = step.after === undefined;
    const readTo = step.after === undefined ? 1 : scrubPosition(step.after);
    const waitMs =
      "cycleMs" in pace
        ? (readTo - scrubPosition(cycle.after)) * pace.cycleMs
        : (step.bytes * this.#share.count * DAY_MS) / pace.bytesPerDay;
    if (!isEnd) return Math.ceil(waitMs);
    const sinceMs = nowMs - cycle.startedMs;
    return Math.ceil(Math.max(waitMs, CYCLE_MS_MIN - sinceMs));
  }

  async #passOf(
    site: ScrubSite,
    how: {
      readonly signal: AbortSignal;
      readonly onProgress:
        | ((site: string, readBytes: number, position: number) => void)
        | undefined;
    },
  ): Promise<ScrubReport> {
    const { clock, journal } = this.#options;
    const { signal, onProgress } = how;
    const problems: VerifyProblem[] = [];
    let cycle = await this.#begin(site, signal);
    for (;;) {
      const step = await this.#read(site, { cycle, share: WHOLE }, signal);
      cycle = await this.#add(site, { cycle, step }, signal);
      problems.push(...step.problems.slice(0, REPORTED_PROBLEM_COUNT_MAX - problems.length));
      if (step.after === undefined) break;
      cycle = { ...cycle, after: step.after };
      onProgress?.(site.name, cycle.bytes, scrubPosition(cycle.after));
    }
    const former = journal.get(site.id, "whole");
    const row = former ?? newRow(site.name, WHOLE);
    const bytesTotal = row.bytesTotal + cycle.bytes;
    journal.set(site.id, "whole", ended({ ...row, bytesTotal }, cycle, clock.now()));
    const { packs, bytes, repaired } = cycle;
    const ok = cycle.problems === 0;
    return { site: site.name, ok, packs, bytes, problems, problemCount: cycle.problems, repaired };
  }

  /** One step: of packs, and around them of what leads to packs. */
  async #read(
    site: ScrubSite,
    { cycle, share }: { readonly cycle: ScrubCycle; readonly share: ScrubShare },
    signal: AbortSignal,
  ): Promise<ScrubStep> {
    const { repository, opener } = site;
    const { after } = cycle;
    const isFirst = after === "" && share.rank === 0;
    const ofSite = isFirst ? await verifySite(repository, { manifests: true, signal }) : [];
    const sizeBytes = this.#options.stepSizeBytes ?? STEP_SIZE_BYTES;
    const step = await scrubStep({ repository, opener, after, share, sizeBytes, signal });
    // Packs of a segment that this node cannot read were passed over, however few were to be read.
    const isLast = step.after === undefined && cycle.problems + ofSite.length === 0;
    const unread = isLast ? indexProblemsOf(repository) : [];
    const problems = [...ofSite, ...step.problems, ...unread];
    return problems.length === step.problems.length ? step : { ...step, problems };
  }

  /** Enters a step in its cycle, and repairs what it found. */
  async #add(
    site: ScrubSite,
    { cycle, step }: { readonly cycle: ScrubCycle; readonly step: ScrubStep },
    signal: AbortSignal,
  ): Promise<ScrubCycle> {
    const { problems } = step;
    let repaired = 0;
    if (problems.length > 0) {
      this.#tell({ kind: "problems", site: site.name, problems });
      try {
        repaired = await this.#options.repair(site, problems, signal);
      } catch (thrown) {
        signal.throwIfAborted();
        this.#tell({ kind: "failed", site: site.name, error: toAppError(thrown) });
      }
    }
    return {
      ...cycle,
      packs: cycle.packs + step.packs,
      bytes: cycle.bytes + step.bytes,
      problems: cycle.problems + problems.length,
      repaired: cycle.repaired + repaired,
    };
  }

  async #begin(site: ScrubSite, signal: AbortSignal): Promise<ScrubCycle> {
    const { sequence } = await site.repository.catchUp(signal);
    return { startedMs: this.#options.clock.now(), sequence, after: "", ...NOTHING };
  }

  /** A row of another share is of no use: another set of packs was read. */
  #rowOf(site: ScrubSite): ScrubRow {
    const row = this.#options.journal.get(site.id, "share");
    if (row === undefined) return newRow(site.name, this.#share);
    if (row.share.rank === this.#share.rank && row.share.count === this.#share.count) return row;
    return { ...newRow(site.name, this.#share), bytesTotal: row.bytesTotal };
  }

  /** What is proved of a whole site: by one node in one go, or by the shares of all. */
  #proofs(site: string): ScrubStart[] {
    const { journal } = this.#options;
    const wholes = [
      journal.get(site, "whole")?.clean,
      ...this.#peers().flatMap(({ sites }) =>
        sites.filter((one) => one.site === site).map(({ whole }) => whole),
      ),
    ];
    const shared = this.#sharedProof(site);
    return [...wholes, shared].filter((proof) => proof !== undefined);
  }

  #sharedProof(site: string): ScrubStart | undefined {
    const { nodes, node, journal } = this.#options;
    const names = nodes.toSorted();
    const proofs: ScrubStart[] = [];
    for (const [rank, name] of names.entries()) {
      const row =
        name === node
          ? journal.get(site, "share")
          : journal.getPeer(name)?.sites.find((one) => one.site === site);
      const isShare = row?.share.rank === rank && row.share.count === names.length;
      if (!isShare || row.clean === undefined) return undefined;
      proofs.push(row.clean);
    }
    return {
      startedMs: Math.min(...proofs.map(({ startedMs }) => startedMs)),
      sequence: Math.min(...proofs.map(({ sequence }) => sequence)),
    };
  }

  #peers(): ScrubAnswer[] {
    const { nodes, node, journal } = this.#options;
    const others = nodes.filter((name) => name !== node);
    return others.flatMap((name) => journal.getPeer(name) ?? []);
  }

  /** What others have proved may be a while ago, and is asked for now and then. */
  async #askPeers(signal: AbortSignal): Promise<void> {
    const { nodes, node, clock, ask, journal } = this.#options;
    const nowMs = clock.monotonic();
    if (nowMs - this.#askedMs < ASK_EVERY_MS) return;
    this.#askedMs = nowMs;
    for (const name of nodes) {
      if (name === node) continue;
      try {
        journal.setPeer(name, await ask(name, signal));
      } catch {
        // Who is away is asked again; what it said before still holds.
        if (signal.aborted) return;
      }
    }
  }

  #tell(event: ScrubEvent): void {
    this.#options.onEvent?.(event);
  }
}

function newRow(name: string, share: ScrubShare): ScrubRow {
  return { name, share, dueMs: 0, waitMs: 0, bytesTotal: 0 };
}

function ended(row: ScrubRow, cycle: ScrubCycle, endedMs: number): ScrubRow {
  const { after: _, ...figures } = cycle;
  const { startedMs, sequence } = cycle;
  const { cycle: _cycle, ...rest } = row;
  const isClean = cycle.problems === 0;
  const last = { ...figures, endedMs };
  return isClean ? { ...rest, last, clean: { startedMs, sequence } } : { ...rest, last };
}
