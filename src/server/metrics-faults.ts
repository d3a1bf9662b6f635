/**
 * Metrics about damage: what reads of each site met, and how scrubbing stands. Labels are names of
 * sites, which are few.
 */
import type { Registry } from "prom-client";
import { Counter, Gauge } from "prom-client";
import type { FaultCounts } from "../cluster/read-faults.ts";
import type { ScrubFigures } from "../cluster/scrub-figures.ts";

/** Where these metrics are read at each scrape. */
export type FaultMetricsSource = {
  readonly scrub: () => readonly ScrubFigures[];
  readonly readFaults: () => ReadonlyMap<string, FaultCounts>;
};

/** Adds them to a page. */
export function addFaultMetrics(source: FaultMetricsSource, registry: Registry): void {
  const faults = new Counter({
    name: "astacus_read_faults_total",
    help: "Reads that a site did not give as it should have, by kind; the next site was asked then",
    labelNames: ["site", "kind"],
    registers: [],
    collect() {
      this.reset();
      for (const [site, counts] of source.readFaults()) {
        for (const [kind, count] of Object.entries(counts)) this.inc({ site, kind }, count);
      }
    },
  });
  const bytes = new Counter({
    name: "astacus_scrub_bytes_total",
    help: "Bytes that this node has read to check them",
    labelNames: ["site"],
    registers: [],
    collect() {
      this.reset();
      for (const { site, bytesTotal } of source.scrub()) this.inc({ site }, bytesTotal);
    },
  });
  for (const one of [faults, bytes]) registry.registerMetric(one);
  const gauge = (
    name: string,
    help: string,
    read: (figures: ScrubFigures) => number | undefined,
  ): void => {
    const one = new Gauge({
      name,
      help,
      labelNames: ["site"],
      registers: [],
      collect() {
        this.reset();
        for (const figures of source.scrub()) {
          const value = read(figures);
          if (value !== undefined) this.set({ site: figures.site }, value);
        }
      },
    });
    registry.registerMetric(one);
  };
  gauge("astacus_scrub_position", "How far the cycle under way is, 0 to 1", (one) => one.position);
  gauge(
    "astacus_scrub_problems",
    "Packs that the cycle under way and the last one found bad on this node",
    (one) => one.problems + (one.lastCycle?.problems ?? 0),
  );
  gauge("astacus_scrub_last_cycle_timestamp_seconds", "When the last cycle ended", (one) =>
    secondsOf(one.lastCycle?.ended),
  );
  gauge(
    "astacus_scrub_proved_timestamp_seconds",
    "All that was at the site then has been read since and was right",
    (one) => secondsOf(one.provedAt),
  );
}

function secondsOf(iso: string | undefined): number | undefined {
  return iso === undefined ? undefined : Date.parse(iso) / 1000;
}
