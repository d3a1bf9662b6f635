/**
 * What a database needs from Astacus, and nothing more. A product is a list of cluster-wide phases
 * with a barrier after each: a phase begins on any node only when the one before ended on all.
 * Generic phases (`store`, `place`) stand among the product's own. A product knows no object store,
 * no chunk and no other node; it gets doors and gives back plain JSON.
 *
 * Every phase may be run again from its start (a node restarted, an attempt failed) and must then
 * come to the same end: phases are idempotent or clean up what they find.
 *
 * Walked on paper through M3 and Cassandra in docs/products/walked.md.
 */
import type { Doors, FileStat } from "../base/doors.ts";
import type { VolumeSource } from "../cas/write/volume-source.ts";

/** Plain data that crosses the wire and lies in the manifest. */
export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [key: string]: Json };

/** What every phase gets. */
export type PhaseContext = {
  readonly doors: Doors;
  /** Id of the operation; captures and scratch are named by it. */
  readonly operation: string;
  readonly signal: AbortSignal;
  /** Says what is going on, for progress displays. */
  readonly say: (message: string) => void;
};

/** What a phase on a node gets besides. */
export type NodePhaseContext = PhaseContext & {
  readonly node: string;
  readonly zone: string;
  /** A folder of this node for the operation, on the file system of the data; made and removed by the core. */
  readonly scratch: string;
  /** What the coordinator hands to this node: results of earlier cluster phases, the node's share of the manifest state. */
  readonly input: Json;
  /**
   * At backup: true if `store` will take this file from its stat alone, so that nothing needs to be
   * captured of it. Paths of a volume come ascending, volumes in any order; may answer false for no
   * reason. Never true for append-only files that grew.
   */
  readonly isStored?: (volume: string, path: string, stat: FileStat) => boolean;
  /** At restore: what is restored. */
  readonly restore?: NodeRestoreChoice;
};

/** What a restore was asked for. */
export type RestoreChoice = {
  /** True if paths or nodes were chosen such that not all of the backup comes back. */
  readonly isPartial: boolean;
  /** Globs; empty for all. */
  readonly paths: readonly string[];
};

/** The same for one node. */
export type NodeRestoreChoice = RestoreChoice & {
  /** Whose share this node gets. */
  readonly from?: string;
};

/** What a phase on the coordinator gets besides: what each earlier phase answered, by phase and node. */
export type ClusterPhaseContext = PhaseContext & {
  readonly nodes: readonly { readonly name: string; readonly zone: string }[];
  readonly results: ReadonlyMap<string, ReadonlyMap<string, Json>>;
  /** State for the manifest (backup), or from it (restore). */
  readonly state: { readonly [key: string]: Json };
  /** At restore: which node's share goes to which node. */
  readonly shares?: readonly { readonly from: string; readonly to: string }[];
  /** At restore: what is restored. */
  readonly restore?: RestoreChoice;
};

/** What a cluster phase says: state to put into the manifest, input for the next node phases, or an earlier phase to begin again at. */
export type ClusterOutcome = {
  readonly state?: { readonly [key: string]: Json };
  /** Handed to node phases that follow, by node name; `*` is everybody's. */
  readonly inputs?: { readonly [node: string]: Json };
  /** Name of an earlier phase to begin again at (a schema changed under us); bounded by `PHASE_REDO_COUNT_MAX`. */
  readonly redo?: string;
  readonly reason?: string;
};

/** A phase runs on all nodes at once, or once on the coordinator, or is the core's own. */
export type Phase =
  | {
      readonly on: "nodes";
      readonly name: string;
      /** Runs also after a failure (dropping a database snapshot); its own failure is only reported. */
      readonly always?: boolean;
      readonly run: (context: NodePhaseContext) => Promise<Json>;
    }
  | {
      readonly on: "cluster";
      readonly name: string;
      readonly always?: boolean;
      readonly run: (context: ClusterPhaseContext) => Promise<ClusterOutcome>;
    }
  /** Reads `volumes()` into the repository. */
  | { readonly on: "core"; readonly name: "store" }
  /** Puts files back at `targets()`. */
  | { readonly on: "core"; readonly name: "place" };

/** Where a volume of the backup goes on this node. */
export type RestoreTarget = {
  readonly volume: string;
  /** Absolute path, byte string. */
  readonly root: string;
  /** Files that the backup does not hold: left alone, or removed. */
  readonly extra: "keep" | "remove";
  /** Files of a higher group appear only when all of lower groups are in place (M3 checkpoints last). */
  readonly group?: (path: string) => number;
};

/** How complete a captured set is, by what the database says its members are. */
export type Completeness = {
  /** All data is there. */
  readonly complete: boolean;
  /** All data is there, and fewer copies of it than there should be. */
  readonly degraded?: boolean;
  readonly problems: readonly string[];
};

/** One product, bound to one node's configuration. */
export interface Product {
  readonly kind: string;
  /**
   * Where the scratch folders of operations are made: a byte string, on the file system of the data
   * that is linked. Below the node's data folder, if left out.
   */
  readonly scratchFolder?: string;
  readonly backupPhases: readonly Phase[];
  readonly restorePhases: readonly Phase[];
  /** What to read in `store`, in this order; called after the node phases before it. */
  volumes(context: NodePhaseContext): Iterable<VolumeSource>;
  /** Where to put what in `place`. */
  targets(context: NodePhaseContext): readonly RestoreTarget[];
  /** Judges a whole backup before it is committed. `present` are the nodes that stored their share. */
  completeness(context: ClusterPhaseContext, present: readonly string[]): Completeness;
  /** Tries a link, a read and a write where backups and restores will; says what is missing and for whom. */
  check(context: PhaseContext): readonly ProductCheck[] | Promise<readonly ProductCheck[]>;
  /**
   * Asks the running database, after a restore, for what a backup says that it held. It must only
   * read. A thing that is not as it was is a line that says so; what ends the asking is thrown.
   */
  checkDatabase?(context: PhaseContext, backup: BackupContent): Promise<readonly ProductCheck[]>;
}

/** What a manifest says of a backup, for who compares. */
export type BackupContent = {
  readonly state: { readonly [key: string]: Json };
  /** Nodes that stored their share. */
  readonly nodes: readonly string[];
};

/** One line of `config check` and of `verify --database`. */
export type ProductCheck = {
  readonly what: string;
  readonly ok: boolean;
  readonly message: string;
  readonly guidance?: string;
};

/** A phase list is begun again at most this often within one attempt. */
export const PHASE_REDO_COUNT_MAX = 5;
