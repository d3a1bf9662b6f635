/**
 * What one member of a cluster is told by the composition: names, folders and figures, already
 * checked. Nothing here knows a configuration file.
 */
import type { BackupSettings } from "../cas/write/backup-settings.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";
import type { RepositoryEncryption } from "../cas/keys/repository-encryption.ts";
import type { NodeAddress } from "./network.ts";
import type { ScrubSettings } from "./scrub.ts";

/** The keys of a node, and the identities that it may restore with unasked. */
export type NodeEncryption = RepositoryEncryption & { readonly identities: readonly string[] };

/** Settings of a member; durations in ms, sizes in bytes, paths as byte strings. */
export type MemberConfig = {
  readonly cluster: string;
  /** This node's name; one of `nodes`. */
  readonly node: string;
  readonly nodes: readonly NodeAddress[];
  /** The node's own folder: catalogs, `operations.sqlite`. */
  readonly dataFolder: string;
  /** Where products may put captures; on the file system of the data. */
  readonly scratchFolder: string;
  readonly backup: BackupSettings & {
    readonly attempts: number;
    /** Commit a backup, marked incomplete, when nodes are missing. */
    readonly degraded: boolean;
    /** A backup gives up below this much free space in the data folder. */
    readonly minimumFreeSpaceBytes: number;
  };
  readonly restore: {
    readonly owner: "recorded" | "parent" | "none";
    readonly concurrency: number;
  };
  /** Where the repository is encrypted. */
  readonly encryption?: NodeEncryption;
  /** Whether damage that is met is repaired from another site, as it is unless told. */
  readonly repair?: boolean;
  /** Rolling verification; none unless configured. */
  readonly scrub?: ScrubSettings;
  /** Of sites that have none of their own. */
  readonly retention: RetentionPolicy;
  readonly undoWindowMs: number;
  /** How long a lease lives when its coordinator is silent. */
  readonly leaseTimeMs: number;
  /** How long a node may be silent in an operation. */
  readonly nodePatienceMs: number;
};
