/**
 * What a person asks first: is everything up, what runs, how old is the newest good backup.
 */
import { toAppError } from "../base/error.ts";
import { newestComplete } from "../cas/log/state.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import { callNode } from "./network.ts";
import type { NodeService } from "./node-service.ts";
import type { OperationRecord, Operations } from "./operations.ts";
import { helloAnswerSchema, PROTOCOL_VERSION } from "./protocol.ts";
import type { ScrubFigures } from "./scrub-figures.ts";
import type { SiteStatus } from "./site-status.ts";
import type { SitesNow } from "./site-views.ts";

/** The answer of `astacus status`. */
export type ClusterStatus = {
  readonly node: string;
  readonly cluster: string;
  readonly product: string;
  readonly version: string;
  readonly repository: string;
  readonly site: { readonly name: string; readonly location: string; readonly id: string };
  /** Why the log could not be read; what is said of backups is then what this node knew before. */
  readonly siteError?: string;
  /** All sites; what is said of mirrors is of the last look. */
  readonly sites?: readonly SiteStatus[];
  /** Why something else than the primary is read. */
  readonly notice?: string;
  /** What somebody should see to: locks that end. */
  readonly warnings?: readonly string[];
  readonly sequence: number;
  readonly backups: number;
  readonly lastComplete?: {
    readonly name: string;
    readonly ended: string;
    readonly ageSeconds: number;
    /** All data is there, and fewer copies of it than there should be. */
    readonly degraded: boolean;
  };
  readonly running: readonly OperationRecord[];
  readonly recent: readonly OperationRecord[];
  readonly lease?: { readonly operation: string; readonly kind: string };
  /** How the rolling verification of each site stands on this node. */
  readonly scrub?: readonly ScrubFigures[];
  readonly nodes: readonly {
    readonly name: string;
    readonly address: string;
    readonly zone: string;
    readonly reachable: boolean;
    readonly version?: string;
    readonly sequence?: number;
    readonly lease?: { readonly operation: string; readonly kind: string };
    readonly error?: string;
  }[];
};

/** How long a node may take to say hello. */
const HELLO_TIMEOUT_MS = 5_000;
/** Ended operations shown. */
const RECENT_COUNT = 10;

/** Asks all nodes and the log. */
export async function clusterStatus(
  parts: CoordinatorParts,
  operations: Operations,
  node: NodeService,
  options: { readonly now: SitesNow; readonly signal: AbortSignal },
): Promise<ClusterStatus> {
  const { now, signal } = options;
  const { config, repository, doors, version, product } = parts;
  const { state } = repository;
  const siteError = now.sites.find(({ id }) => id === state.siteId)?.error?.message;
  const newest = newestComplete(state, config.cluster);
  const nodes = await Promise.all(
    config.nodes.map(async (one) => {
      try {
        const answer = await callNode(
          doors,
          one,
          {
            method: "hello",
            body: { protocol: PROTOCOL_VERSION, cluster: config.cluster, version },
            answer: helloAnswerSchema,
          },
          { timeoutMs: HELLO_TIMEOUT_MS, patienceMs: 0, signal },
        );
        return {
          ...one,
          reachable: true,
          version: answer.version,
          sequence: answer.head.sequence,
          ...(answer.lease === null ? {} : { lease: answer.lease }),
        };
      } catch (thrown) {
        signal.throwIfAborted();
        return { ...one, reachable: false, error: toAppError(thrown).message };
      }
    }),
  );
  return {
    node: config.node,
    cluster: config.cluster,
    product: product.kind,
    version,
    repository: state.repositoryId,
    site: { name: repository.site.name, location: repository.site.location, id: state.siteId },
    ...(siteError === undefined ? {} : { siteError }),
    sequence: state.sequence,
    backups: [...state.backups.values()].filter((one) => one.forgotten === undefined).length,
    ...(newest === undefined
      ? {}
      : {
          lastComplete: {
            name: newest.name,
            ended: newest.ended,
            ageSeconds: Math.max(
              0,
              Math.round((doors.clock.now() - Date.parse(newest.ended)) / 1000),
            ),
            degraded: newest.degraded === true,
          },
        }),
    running: operations.running(),
    recent: operations.list({ limit: RECENT_COUNT }),
    ...(node.lease === undefined ? {} : { lease: node.lease }),
    nodes,
  };
}
