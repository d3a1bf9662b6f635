/**
 * The plan of a migration in words.
 */
import { formatDuration } from "../base/units.ts";
import type { MigrationPlan } from "../cluster/migrate-plan.ts";
import { lockEndText } from "../sites/lock-period.ts";
import { formatMoney } from "../sites/prices.ts";
import { count, renderPairs, size } from "./table.ts";
import { describeCost, describeUsage } from "./usage-text.ts";

/** The plan, line by line; what stands in the way comes last. */
export function renderMigrationPlan(plan: MigrationPlan): string {
  const { from, to, timeMs, storagePerMonth } = plan;
  const forgotten = plan.backups.filter(({ state }) => state === "forgotten-there").length;
  const head = renderPairs([
    ["from", `${from.name} at ${from.location}`],
    ["to", `${to.name} at ${to.location}`],
    ["backups", `${count(plan.copies)} to copy, ${count(plan.present)} there already`],
    ...(forgotten === 0
      ? []
      : [["forgotten there", `${count(forgotten)}, which stay forgotten`] as const]),
    ["objects", `${count(plan.packs)} packs, ${size(plan.bytes)}; each is read back and checked`],
    ...(plan.isWithinStore
      ? [["copied by", "their store itself: this reads each copy once, and sends nothing"] as const]
      : []),
    ...(timeMs === undefined
      ? []
      : [["time", `at least ${formatDuration(timeMs)} at the configured bandwidth`] as const]),
    ...(storagePerMonth === undefined
      ? []
      : [["storage", `${formatMoney(storagePerMonth)} a month at ${to.name}`] as const]),
    ...describeLocks(plan),
    ["then", describeSwitch(plan)],
  ]);
  const usage = describeUsage(plan.usage).map((line) => `About, ${line}`);
  const idle = plan.nodes
    .filter(({ helps }) => !helps)
    .map(({ name, why }) => `Node ${name} does not help to copy: ${why ?? "it does not answer"}`);
  const refusals = plan.refusals.map((refusal) => `  ${refusal}`);
  return [
    head,
    ...usage,
    ...idle,
    ...(refusals.length === 0 ? [] : ["Refused:", ...refusals]),
  ].join("\n");
}

function describeLocks({ locks }: MigrationPlan): (readonly [string, string])[] {
  if (locks === undefined) return [];
  const { mode, until, periodMs, renewal } = locks;
  return [
    ["locks", `${mode}: nothing can be removed before ${lockEndText(Date.parse(until))}`],
    ["renewal", `once in ${formatDuration(periodMs)}, by cleanup: about ${describeCost(renewal)}`],
  ];
}

function describeSwitch({ switches, isSwitched, isPartial, to, from }: MigrationPlan): string {
  if (isSwitched) return `nothing is switched: ${to.name} is the primary already`;
  const stays = isPartial ? "an archive that is only read" : "a mirror";
  if (switches) return `${to.name} becomes the primary; ${from.name} stays, as ${stays}`;
  return "nothing is switched: the primary stays where it is";
}
