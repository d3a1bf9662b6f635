/**
 * What routes work with: the node behind the server, the configuration of now, and the few things
 * that a server does for itself. The node is named by the methods that are used, so that tests can
 * put another one in its place.
 */
import type { Clock } from "../base/doors.ts";
import type { Member } from "../cluster/member.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import type { Config } from "./config.ts";
import type { Log } from "./log.ts";

/** The member of the cluster, as routes use it. */
export type NodeApi = Pick<
  Member,
  | "operations"
  | "handle"
  | "startBackup"
  | "planRestore"
  | "startRestore"
  | "startCleanup"
  | "startVerify"
  | "startScrub"
  | "planMigration"
  | "startMigration"
  | "startRetirement"
  | "startMark"
  | "startSync"
  | "startPromote"
  | "startUpdateSites"
  | "listSites"
  | "notice"
  | "warnings"
  | "listBackups"
  | "showBackup"
  | "archive"
  | "status"
>;

/** Whether the node can work, and if not, why. */
export type Readiness =
  | { readonly ready: true }
  | { readonly ready: false; readonly reason: string; readonly guidance?: string };

/** What became of a configuration that was taken. */
export type Applied = {
  /**
   * `open`: the node works with it. `busy`: it will, when what runs now has ended. `opening`: it still
   * waited when nobody waited any longer. `failed`: it cannot be opened with it, and tries on.
   */
  readonly node: "open" | "busy" | "opening" | "failed";
  /** Why it is not open. */
  readonly reason?: string;
  readonly guidance?: string;
};

/** Everything that a route may use. */
export type ServerContext = {
  readonly version: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly config: () => Config;
  /** The node; throws AppError `unavailable` with the reason while there is none. */
  readonly node: () => NodeApi;
  readonly readiness: () => Readiness;
  /** Starts an operation so that metrics and log hear of its end. */
  readonly start: (begin: (node: NodeApi) => OperationRecord) => OperationRecord;
  readonly metrics: () => Promise<string>;
  /** Reads the configuration again; throws ConfigProblems and keeps the old one if it is wrong. */
  readonly reload: () => Promise<void>;
  /** Waits a while for the node to work with the configuration that was read last. */
  readonly whenApplied: () => Promise<Applied>;
  /** SHA-256 of the configuration file as it lies on the disk. */
  readonly hashOnDisk: () => Promise<string>;
};

/** What the listener passes along with a request. */
export type ListenerBindings = {
  /** Lifts the time limit of an idle connection for one request. */
  readonly takeYourTime?: (request: Request) => void;
};
