/**
 * `astacus restore --to DIR -c FILE`: files of a backup into a folder, with the site and nothing
 * else. Needs no agreement where the folder is empty or not there yet.
 */
import { readdirSync } from "node:fs";
import { realClock } from "../base/clock.ts";
import { AppError } from "../base/error.ts";
import { pathFromText } from "../base/path.ts";
import type { OfflineRestored } from "../cluster/offline.ts";
import { print, printDone } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { mustAgree, refusedPlan } from "./command-restore.ts";
import type { RestoreOptions } from "./command-restore.ts";
import { EXIT } from "./exit-code.ts";
import { withOffline } from "./offline.ts";
import { openProgressView } from "./progress-view.ts";
import { renderFolderPlan } from "./restore-plan-text.ts";
import { count, renderPairs, size } from "./table.ts";

/** Restores into a folder. */
export async function restoreToFolder(
  run: CommandRun,
  own: RestoreOptions & { readonly to: string },
): Promise<CommandEnd> {
  if (run.options.config === undefined) {
    throw new AppError("usage", "`restore --to DIR` needs -c FILE, and no server.", {
      guidance: "The configuration says where the site is.",
    });
  }
  const nodes = own.node?.map((name) => mustBePlain(name));
  return await withOffline(run, async (offline, { config, notice }) => {
    const request = {
      target: pathFromText(own.to),
      ownerPolicy: config.restore.owner,
      ...(own.backup === undefined ? {} : { backup: own.backup }),
      ...(nodes === undefined ? {} : { nodes }),
      ...(own.path === undefined ? {} : { paths: own.path }),
      ...(own.incomplete === true ? { incomplete: true } : {}),
    };
    const planned = await offline.planRestoreTo(request);
    const plan = { ...planned, ...(notice === undefined ? {} : { notice }) };
    if (own.plan === true) {
      print(run, plan, () => renderFolderPlan(plan));
      return plan.refusals.length > 0 ? EXIT.refused : EXIT.done;
    }
    if (plan.refusals.length > 0) throw refusedPlan(plan.refusals);
    if (own.yes !== true && !isEmptyFolder(own.to)) {
      run.terminal.say(renderFolderPlan(plan));
      await mustAgree(run);
    }
    const view = await openProgressView(run.terminal, () => realClock.monotonic());
    try {
      const chosen = { ...request, backup: plan.backup.id };
      const restored = await offline.restoreTo(chosen, (progress) => view.show(whole(progress)));
      view.close();
      return printDone(run, restored, () => describe(restored, own.to));
    } finally {
      view.close();
    }
  });
}

function mustBePlain(name: string): string {
  if (!name.includes("=")) return name;
  throw new AppError("usage", `--node ${name}: with --to it is only the name of a node.`);
}

function isEmptyFolder(path: string): boolean {
  try {
    return readdirSync(path).length === 0;
  } catch {
    return true;
  }
}

function whole(progress: { files: number; bytes: number; bytesTotal?: number }) {
  const none = { readBytes: 0, newBytes: 0, storedBytes: 0, handled: 0, failed: 0, total: 0 };
  return { phase: "restore", ...none, ...progress, nodes: {} };
}

function describe(restored: OfflineRestored, target: string): string {
  const add = (pick: (one: OfflineRestored["volumes"][number]["outcome"]) => number): number =>
    restored.volumes.reduce((sum, volume) => sum + pick(volume.outcome), 0);
  const owners = add((one) => one.ownersNotSet);
  return renderPairs([
    ["restored", restored.backup.name],
    ["into", target],
    ["volumes", restored.volumes.map(({ node, volume }) => `${node}/${volume}`).join(", ")],
    [
      "written",
      `${count(add((one) => one.filesWritten))} files, ${size(add((one) => one.bytesWritten))}`,
    ],
    ["kept", `${count(add((one) => one.filesKept))} files that matched`],
    ...(owners === 0 ? [] : [["owners not set", `${count(owners)} (not allowed)`] as const]),
  ]);
}
