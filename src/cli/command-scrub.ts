/**
 * `astacus scrub`: how the rolling verification stands, or with `--now` all packs at once.
 */
import { AppError } from "../base/error.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import type { ScrubFigures } from "../cluster/scrub-figures.ts";
import type { ScrubReport } from "../cluster/scrub.ts";
import type { ClusterStatus } from "../cluster/status.ts";
import { print } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { connect } from "./connect.ts";
import { EXIT } from "./exit-code.ts";
import { finish } from "./finish.ts";
import { count, counted, renderTable, size, time } from "./table.ts";

const PROBLEMS_SHOWN = 20;

type ScrubResult = { readonly ok: boolean; readonly sites: readonly ScrubReport[] };

/** Shows figures, or reads all and ends with 1 if anything is wrong. */
export async function scrub(
  run: CommandRun,
  own: { readonly site?: readonly string[]; readonly now?: boolean },
): Promise<CommandEnd> {
  const client = await connect(run);
  const { site: sites } = own;
  const status = await client.get<ClusterStatus>("/v1/status");
  mustKnow(sites ?? [], status);
  if (own.now !== true) {
    const all = status.scrub ?? [];
    const shown = all.filter(({ site }) => sites?.includes(site) ?? true);
    print(run, shown, () => describeScrubbing(shown));
    return EXIT.done;
  }
  const request = sites === undefined ? {} : { sites };
  const record = await client.post<OperationRecord>("/v1/scrubs", request);
  return await finish(run, client, record, {
    text: (result) => (result as ScrubResult).sites.map(describeReport).join("\n"),
    code: (result) => ((result as ScrubResult).ok ? EXIT.done : EXIT.failed),
  });
}

/** One row a site. */
export function describeScrubbing(figures: readonly ScrubFigures[]): string {
  if (figures.length === 0) return "Nothing was scrubbed by this node yet.";
  return renderTable(
    [
      { title: "SITE" },
      { title: "CYCLE" },
      { title: "BEGAN" },
      { title: "PROBLEMS" },
      { title: "LAST ENDED" },
      { title: "PROVED" },
    ],
    figures.map(({ site, position, cycleStarted, problems, lastCycle, provedAt }) => [
      site,
      cycleStarted === undefined ? "none" : `${Math.floor(position * 100)} %`,
      cycleStarted === undefined ? "" : time(cycleStarted),
      count(problems + (lastCycle?.problems ?? 0)),
      lastCycle === undefined ? "never" : time(lastCycle.ended),
      provedAt === undefined ? "not yet" : time(provedAt),
    ]),
  );
}

/** A name that is mistyped must not look like a site of which nothing was read. */
function mustKnow(wanted: readonly string[], { site, sites = [] }: ClusterStatus): void {
  const known = new Set([site.name, ...sites.map(({ name }) => name)]);
  const unknown = wanted.find((name) => !known.has(name));
  if (unknown === undefined) return;
  throw new AppError("not-found", `There is no site ${unknown}.`, {
    guidance: `The cluster's sites are ${[...known].join(", ")}.`,
  });
}

function describeReport(report: ScrubReport): string {
  const { site, packs, bytes, problems, problemCount, repaired } = report;
  const head = `${site}: ${counted(packs, "pack")} of ${size(bytes)} read`;
  if (problemCount === 0) return `${head}, nothing is wrong.`;
  const shown = problems.slice(0, PROBLEMS_SHOWN).map(({ message }) => `  ${message}`);
  const more = problemCount - shown.length;
  const tail = more > 0 ? [`  … and ${count(more)} more (--json shows up to a thousand)`] : [];
  const outcome = `${counted(problemCount, "problem")}, ${count(repaired)} of them repaired:`;
  return [`${head}, ${outcome}`, ...shown, ...tail].join("\n");
}
