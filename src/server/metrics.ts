/**
 * What a monitor wants to know, in the form of Prometheus: above all how old the newest complete
 * backup is. A scrape asks nobody: it reads counters and the state of the log as this node knows it.
 * No label ever holds an id.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { OperationRecord } from "../cluster/operations.ts";
import type { SiteStatus } from "../cluster/site-status.ts";
import type { CountingSite } from "../sites/counting-site.ts";
import { addFaultMetrics } from "./metrics-faults.ts";
import type { FaultMetricsSource } from "./metrics-faults.ts";

/** What the metrics are read from at each scrape; undefined parts are not known now. */
export type MetricsSource = {
  readonly now: () => number;
  readonly isReady: () => boolean;
  readonly running: () => readonly OperationRecord[];
  /** Sites that are open. */
  readonly sites: () => readonly Pick<
    CountingSite,
    "name" | "requests" | "bytesRead" | "bytesWritten" | "healed"
  >[];
  readonly backups: () => BackupFigures | undefined;
  readonly damage?: FaultMetricsSource;
  /** Sites as of the last look. */
  readonly places: () => readonly SiteStatus[];
};

/** The newest complete backup of this cluster, and how many backups there are. */
export type BackupFigures = {
  readonly count: number;
  readonly newestEndedMs: number | undefined;
  readonly isNewestDegraded: boolean;
};

/** From a scrape's seconds to a night's hours. */
const DURATION_BUCKETS_SECONDS = [1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 43_200];

const BACKUP_TOTALS = ["files", "bytes", "newBytes", "storedBytes"] as const;

/** The metrics of one server. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #ended: Counter<"kind" | "state">;
  readonly #failures: Counter<"kind" | "error">;
  readonly #durations: Histogram<"kind" | "state">;
  readonly #backupTotals: Counter<"what">;
  readonly #lastBackup: Gauge<"what">;

  constructor(source: MetricsSource, version: string) {
    const registers = [this.#registry];
    this.#ended = new Counter({
      name: "astacus_operations_total",
      help: "Operations of this node that have ended",
      labelNames: ["kind", "state"],
      registers,
    });
    this.#failures = new Counter({
      name: "astacus_operation_failures_total",
      help: "Operations that failed, by kind and by kind of error",
      labelNames: ["kind", "error"],
      registers,
    });
    this.#durations = new Histogram({
      name: "astacus_operation_duration_seconds",
      help: "How long operations took",
      labelNames: ["kind", "state"],
      buckets: DURATION_BUCKETS_SECONDS,
      registers,
    });
    this.#backupTotals = new Counter({
      name: "astacus_backup_total",
      help: "Sums over the backups made here: files, bytes, newBytes, storedBytes, readBytes",
      labelNames: ["what"],
      registers,
    });
    this.#lastBackup = new Gauge({
      name: "astacus_last_backup",
      help: "The same of the newest backup made here, and its problems",
      labelNames: ["what"],
      registers,
    });
    const info = new Gauge({ name: "astacus_info", help: "1", labelNames: ["version"], registers });
    info.set({ version }, 1);
    addGauges(source, this.#registry);
    addSiteGauges(source, this.#registry);
    if (source.damage !== undefined) addFaultMetrics(source.damage, this.#registry);
    addPlaceGauges(source, this.#registry);
  }

  /** Counts an operation that has ended. */
  count(record: OperationRecord): void {
    const { kind, state } = record;
    const durationMs = Date.parse(record.ended ?? record.started) - Date.parse(record.started);
    this.#ended.inc({ kind, state });
    this.#durations.observe({ kind, state }, Math.max(0, durationMs) / 1000);
    if (record.error !== undefined) this.#failures.inc({ kind, error: record.error.kind });
    if (kind === "backup" && state === "done") this.#countBackup(record.result);
  }

  /** The page. */
  async render(): Promise<string> {
    return await this.#registry.metrics();
  }

  #countBackup(result: unknown): void {
    const totals = numbersOf(childOf(result, "totals"));
    const own = numbersOf(result);
    const said = { ...totals, readBytes: own["readBytes"], problems: own["problemCount"] };
    for (const [what, value] of Object.entries(said)) {
      if (value === undefined) continue;
      this.#lastBackup.set({ what }, value);
      const isSum = what === "readBytes" || BACKUP_TOTALS.some((name) => name === what);
      if (isSum) this.#backupTotals.inc({ what }, value);
    }
  }
}

function addGauges(source: MetricsSource, registry: Registry): void {
  const gauge = (name: string, help: string, read: () => number | undefined): void => {
    const one = new Gauge({
      name,
      help,
      registers: [],
      collect() {
        this.reset();
        const value = read();
        if (value === undefined) this.remove();
        else this.set(value);
      },
    });
    registry.registerMetric(one);
  };
  gauge("astacus_ready", "1 if the node can work", () => (source.isReady() ? 1 : 0));
  gauge(
    "astacus_last_complete_backup_timestamp_seconds",
    "When the newest complete backup of the cluster ended, as this node knows it",
    () => seconds(source.backups()?.newestEndedMs),
  );
  gauge("astacus_last_complete_backup_age_seconds", "How old that backup is", () => {
    const endedMs = source.backups()?.newestEndedMs;
    return endedMs === undefined ? undefined : Math.max(0, (source.now() - endedMs) / 1000);
  });
  gauge(
    "astacus_last_complete_backup_degraded",
    "1 if that backup has all data and fewer copies of it than there should be",
    () => {
      const backups = source.backups();
      if (backups?.newestEndedMs === undefined) return undefined;
      return backups.isNewestDegraded ? 1 : 0;
    },
  );
  gauge("astacus_backups", "Backups that are listed", () => source.backups()?.count);
  const running = new Gauge({
    name: "astacus_operations_running",
    help: "Operations under way on this node",
    labelNames: ["kind"],
    registers: [],
    collect() {
      this.reset();
      for (const kind of ["backup", "restore", "cleanup", "verify"]) this.set({ kind }, 0);
      for (const { kind } of source.running()) this.inc({ kind });
    },
  });
  registry.registerMetric(running);
}

function addSiteGauges(source: MetricsSource, registry: Registry): void {
  const requests = new Gauge({
    name: "astacus_site_requests",
    help: "Requests to the site since it was opened, by kind",
    labelNames: ["site", "kind"],
    registers: [],
    collect() {
      this.reset();
      for (const site of source.sites()) {
        for (const [kind, value] of Object.entries(site.requests)) {
          this.set({ site: site.name, kind }, value);
        }
      }
    },
  });
  registry.registerMetric(requests);
  const bytes = new Gauge({
    name: "astacus_site_bytes",
    help: "Bytes of objects since the site was opened, read and written",
    labelNames: ["site", "direction"],
    registers: [],
    collect() {
      this.reset();
      for (const site of source.sites()) {
        this.set({ site: site.name, direction: "read" }, site.bytesRead);
        this.set({ site: site.name, direction: "written" }, site.bytesWritten);
      }
    },
  });
  registry.registerMetric(bytes);
  const healed = new Gauge({
    name: "astacus_site_healed",
    help: "Objects that somebody had deleted, in a bucket with versions, and that were found again",
    labelNames: ["site"],
    registers: [],
    collect() {
      this.reset();
      for (const site of source.sites()) {
        if (site.healed !== undefined) this.set({ site: site.name }, site.healed.size);
      }
    },
  });
  registry.registerMetric(healed);
}

/** What each site is to the others, and how far a mirror is behind. */
function addPlaceGauges(source: MetricsSource, registry: Registry): void {
  const gauge = (
    name: string,
    help: string,
    read: (site: SiteStatus) => number | undefined,
  ): void => {
    const one = new Gauge({
      name,
      help,
      labelNames: ["site", "role"],
      registers: [],
      collect() {
        this.reset();
        for (const site of source.places()) {
          const value = read(site);
          if (value !== undefined) this.set({ site: site.name, role: site.role }, value);
        }
      },
    });
    registry.registerMetric(one);
  };
  gauge("astacus_site_reachable", "1 if the site answered when it was last asked", (site) =>
    site.reachable ? 1 : 0,
  );
  gauge("astacus_site_backups", "Backups that the site lists", (site) => site.backups);
  gauge(
    "astacus_site_locked_until_timestamp_seconds",
    "Until when a site that locks surely keeps what backups need; 0 if its header has no lock",
    ({ lock }) => {
      if (lock === undefined) return undefined;
      if (lock.until !== undefined) return Date.parse(lock.until) / 1000;
      // A legal hold has no end, and 0 would be none at all.
      return lock.ending ? 0 : undefined;
    },
  );
  gauge(
    "astacus_site_locks_ending",
    "1 if less than one period is left of its locks: no cleanup has renewed them",
    ({ lock }) => (lock === undefined ? undefined : Number(lock.ending)),
  );
  gauge(
    "astacus_site_lag_backups",
    "Backups that a mirror lacks of the primary",
    (site) => site.lag?.backups,
  );
  gauge("astacus_site_lag_bytes", "Bytes that they were sent as", (site) => site.lag?.bytes);
  gauge("astacus_site_lag_age_seconds", "How old the oldest of them is; 0 if none", (site) =>
    site.lag === undefined ? undefined : (site.lag.ageSeconds ?? 0),
  );
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}

function childOf(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined;
}

function numbersOf(value: unknown): Readonly<Record<string, number | undefined>> {
  if (typeof value !== "object" || value === null) return {};
  const entries = Object.entries(value).filter(([, each]) => typeof each === "number");
  return Object.fromEntries(entries);
}
