/**
 * The table of all routes but those of the original (original-routes.ts).
 */
import type { Route } from "./route.ts";
import { downloadArchive } from "./routes-archive.ts";
import * as backups from "./routes-backups.ts";
import { startCleanup, startVerification } from "./routes-maintenance.ts";
import { planMigration, retireSite, startMigration } from "./routes-migrations.ts";
import { callNodeMethod } from "./routes-node.ts";
import * as operations from "./routes-operations.ts";
import { planRestore, startRestore } from "./routes-restores.ts";
import { startRepair, startScrub } from "./routes-scrub.ts";
import * as server from "./routes-server.ts";
import { listSites, startPromote, startSync, updateSites } from "./routes-sites.ts";

/** In the order of the documentation. */
export const ROUTES: readonly Route[] = [
  server.getStatus,
  backups.listBackups,
  backups.startBackup,
  backups.showBackup,
  downloadArchive,
  backups.forgetBackup,
  backups.undeleteBackup,
  backups.pinBackup,
  backups.unpinBackup,
  planRestore,
  startRestore,
  startCleanup,
  startVerification,
  startRepair,
  startScrub,
  planMigration,
  startMigration,
  retireSite,
  listSites,
  startSync,
  startPromote,
  updateSites,
  operations.listOperations,
  operations.getOperation,
  operations.watchOperation,
  operations.cancelOperation,
  operations.deleteOperation,
  server.reloadConfig,
  server.getHealth,
  server.getReadiness,
  server.getMetrics,
  callNodeMethod,
];
