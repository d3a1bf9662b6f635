/**
 * Verification as an operation: of a site's repository, or of the running database after a restore.
 * It leases nobody and may run beside anything. It reads one site alone, so that what is wrong there
 * shows; with `repair`, that is mended from the other sites and looked at again.
 */
import { findBackup } from "../cas/log/find-backup.ts";
import type { BackupRecord } from "../cas/log/state.ts";
import { newestComplete } from "../cas/log/state.ts";
import { recheckPacks } from "../cas/copy/recheck-packs.ts";
import type { VerifyReport } from "../cas/read/verify.ts";
import { verifyRepository } from "../cas/read/verify.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import type { OperationContext } from "./operations.ts";
import type { JsonValue } from "./protocol.ts";
import { describeRepair, distrustFaults, faultsOf, repairFaults } from "./repair.ts";
import type { FaultyObject } from "./read-faults.ts";
import type { SiteRepair } from "./repair.ts";
import { verifyDatabase } from "./verify-database.ts";
import { verifyShares } from "./verify-shares.ts";

/** What to verify. */
export type VerifyRequest = {
  readonly backup?: string;
  readonly deep: boolean;
  /** Ask the running database in place of the repository. */
  readonly database?: boolean;
  /** Mend what is wrong from the other sites. */
  readonly repair?: boolean;
  /** The name of the site to verify, in place of the one that reads begin at. */
  readonly site?: string;
};

/** What a verification says: of the state after a repair, if there was one. */
export type VerifyResult = VerifyReport & {
  readonly site: string;
  /** One after another, since what is mended may show what is wrong behind it. */
  readonly repairs?: readonly SiteRepair[];
};

/** Verifies one backup or all, or the database after a restore; the report says what is wrong. */
export async function runVerifyOperation(
  parts: CoordinatorParts,
  context: OperationContext,
  request: VerifyRequest,
): Promise<JsonValue> {
  if (request.database === true) {
    return (await verifyDatabase(parts, context, request)) as unknown as JsonValue;
  }
  const { repository, config, site } = parts;
  const { signal } = context;
  const bad = new Set<string>();
  let report = await verifySite(parts, context, request, bad);
  if (!report.ok) {
    context.say("Problems were found; looking again with an index that is built anew.");
    await repository.rebuildIndex(signal);
    report = await verifySite(parts, context, request, bad);
  }
  const repairs: SiteRepair[] = [];
  while (!report.ok && request.repair === true) {
    context.progress({ phase: "repair" });
    const how = { operation: context.id, signal };
    const done = await repairFaults(parts.sites, faultsOf(site.id, report.problems), how);
    for (const repair of done) context.say(describeRepair(repair));
    repairs.push(...done);
    if (!done.some(({ repaired }) => repaired > 0)) break;
    // What can be read again may show what else is wrong behind it.
    report = await verifySite(parts, context, request, bad);
  }
  // A report names some; all of them are to be remembered.
  for (const { kind, id } of faultsOf(site.id, report.problems)) if (kind === "pack") bad.add(id);
  const faults = Array.from(bad, (id): FaultyObject => ({ site: site.id, kind: "pack", id }));
  await distrustFaults(parts.sites, faults, signal);
  if (request.deep) await recheckPacks(repository, bad, signal);
  const proved = await verifyShares(report, {
    repository,
    source: parts.openSource({ alone: true }),
    backup: chosenBackups(parts, request)?.[0] ?? newestComplete(repository.state, config.cluster),
    signal,
    onNode: (node) => context.progress({ phase: `checksums of ${node}` }),
  });
  const result: VerifyResult = {
    ...proved,
    ...(report.ok ? {} : { distrusted: bad.size }),
    site: site.name,
    ...(request.repair === true ? { repairs } : {}),
  };
  return result as unknown as JsonValue;
}

async function verifySite(
  parts: CoordinatorParts,
  context: OperationContext,
  request: VerifyRequest,
  bad: Set<string>,
): Promise<VerifyReport> {
  const { repository } = parts;
  bad.clear();
  await repository.catchUp(context.signal);
  const backups = chosenBackups(parts, request);
  return await verifyRepository({
    repository,
    // What is wrong here must show, whoever has it whole.
    source: parts.openSource({ alone: true }),
    ...(backups === undefined ? {} : { backups }),
    deep: request.deep,
    onBadPack: (pack) => bad.add(pack),
    signal: context.signal,
    onProgress: (progress) =>
      context.progress({ phase: request.deep ? "reading" : "checking", ...progress }),
  });
}

/** As the log has them now: a repair moves manifests. Undefined for all that are listed. */
function chosenBackups(
  { repository, config }: CoordinatorParts,
  request: VerifyRequest,
): BackupRecord[] | undefined {
  if (request.backup === undefined) return undefined;
  return [findBackup(repository.state, request.backup, config.cluster, { forgotten: true })];
}
