/**
 * The product for M3: the files of each node, captured in the order in which M3 moves data, and the
 * cluster's state in etcd. docs/products/m3.md says what is taken, why it is consistent, and how a
 * restore goes; the phases are in m3-backup.ts and m3-restore.ts.
 */
import { joinPath, pathFromText } from "../../base/path.ts";
import type { NodePhaseContext, Product, RestoreTarget } from "../product.ts";
import { LogCuts } from "./capture-logs.ts";
import { M3_VOLUMES } from "./capture-options.ts";
import { checkM3Database } from "./database-check.ts";
import { parseSnapshotMetadataName, parseFilesetName } from "./fileset-names.ts";
import { backupPhases, judgeBackup, readCapturedLogs } from "./m3-backup.ts";
import { checkM3 } from "./m3-check.ts";
import type { M3Config } from "./m3-config.ts";
import { restorePhases } from "./m3-restore.ts";
import { capturedM3Volumes } from "./m3-volumes.ts";

/** An M3 cluster. */
export function createM3Product(config: M3Config): Product {
  const cuts = new LogCuts();
  return {
    kind: "m3",
    scratchFolder:
      config.captures === undefined
        ? joinPath(config.root, ".astacus")
        : pathFromText(config.captures),
    backupPhases: backupPhases(config, cuts),
    restorePhases: restorePhases(config),
    volumes: (context: NodePhaseContext) => {
      const { files } = context.doors;
      const { scratch } = context;
      const logs = readCapturedLogs(files, scratch);
      return capturedM3Volumes({ files, root: config.root, scratch, logs });
    },
    targets: () => M3_VOLUMES.map((volume) => targetOf(config.root, volume)),
    completeness: (context, present) => judgeBackup(config, context, present),
    check: (context) => checkM3(config, context),
    checkDatabase: (context, backup) => checkM3Database(config, context, backup),
  };
}

/**
 * What the backup does not hold is removed: a log or a snapshot of later days would be replayed on
 * top. Checkpoints come last, so M3 never sees a fileset that is not whole.
 */
function targetOf(root: string, volume: string): RestoreTarget {
  return {
    volume,
    root: joinPath(root, volume),
    extra: "remove",
    group: (path) => (isCheckpoint(path.slice(path.lastIndexOf("/") + 1)) ? 1 : 0),
  };
}

function isCheckpoint(name: string): boolean {
  if (parseFilesetName(name)?.part === "checkpoint") return true;
  return parseSnapshotMetadataName(name)?.isCheckpoint === true;
}
