/**
 * The coordinator's hold on the nodes for one operation: asks who they are, checks that all see one
 * repository and one history, leases them, renews, runs phases with a barrier after each, releases.
 * Whatever happens, `close` releases; and if this process dies, the leases end by themselves.
 */
import type { Doors } from "../base/doors.ts";
import { AppError, toAppError } from "../base/error.ts";
import { toHex } from "../base/hex.ts";
import { entryHash } from "../cas/log/entry.ts";
import type { NodeAddress } from "./network.ts";
import { callNode } from "./network.ts";
import type { OperationContext } from "./operations.ts";
import type { ProgressBoard } from "./progress-board.ts";
import { DISTRUSTED_COUNT_MAX } from "../cas/catalog/distrusted-packs.ts";
import type { HelloAnswer, JsonValue, LeaseMirror, RestoreChoiceOfNode } from "./protocol.ts";
import {
  helloAnswerSchema,
  jsonSchema,
  LEASE_RENEWAL_COUNT,
  phaseEventSchema,
  PROTOCOL_VERSION,
  releaseAnswerSchema,
} from "./protocol.ts";
import type { OpenSite } from "./site-views.ts";

/** One try of a short call. */
const SHORT_CALL_TIMEOUT_MS = 30_000;
/** One try of a phase; it streams, and is attached to again when it breaks. */
const PHASE_CALL_TIMEOUT_MS = 24 * 3_600_000;

export type SessionOptions = {
  readonly doors: Doors;
  /** The site that all nodes work on. */
  readonly site: OpenSite;
  /** Of a backup: who else gets its packs. */
  readonly mirrors?: readonly LeaseMirror[];
  readonly context: OperationContext;
  readonly kind: "backup" | "restore";
  readonly cluster: string;
  readonly version: string;
  /** The kind of product, which all nodes must be configured for. */
  readonly product: string;
  readonly self: NodeAddress;
  readonly patienceMs: number;
  readonly leaseTimeMs: number;
  readonly board: ProgressBoard;
  /** Of a restore: what each node gets. */
  readonly restoreOf?: (node: NodeAddress) => RestoreChoiceOfNode;
};

/** Leased nodes of one operation. */
export class ClusterSession implements AsyncDisposable {
  readonly #options: SessionOptions;
  readonly #lease: string;
  readonly #leased = new Map<string, NodeAddress>();
  readonly #lost = new Map<string, AppError>();
  readonly #versions = new Map<string, string>();
  readonly #stop = new AbortController();
  #renewing: Promise<void> = Promise.resolve();
  #released = false;

  /** What any of the nodes distrusts at the site. */
  #distrusted: HelloAnswer["distrusted"] = [];

  private constructor(options: SessionOptions) {
    this.#options = options;
    this.#lease = toHex(options.doors.random.bytes(16));
  }

  /**
   * Greets and leases the nodes. A node that does not answer fails the operation, unless
   * `mayMiss`: then it is named in `missing`.
   */
  static async open(
    options: SessionOptions,
    nodes: readonly NodeAddress[],
    mayMiss: boolean,
  ): Promise<ClusterSession> {
    const session = new ClusterSession(options);
    try {
      await session.#greet(nodes, mayMiss);
      await session.#takeLeases();
      session.#renewing = session.#renew();
      return session;
    } catch (thrown) {
      await session.close(null);
      throw thrown;
    }
  }

  /** Nodes that work. */
  get nodes(): NodeAddress[] {
    return [...this.#leased.values()].filter((node) => !this.#lost.has(node.name));
  }

  /** The version that each node runs, by name. */
  get versions(): ReadonlyMap<string, string> {
    return this.#versions;
  }

  /** Nodes that were not reached, with the reason. */
  get missing(): ReadonlyMap<string, AppError> {
    return this.#lost;
  }

  /**
   * Runs a phase on all nodes at once and waits for all. A failure on one aborts nothing on the
   * others before they end; then the first failure is thrown, naming the node. `onEnd` is told of
   * each node as soon as its part has ended.
   */
  async phase(
    name: string,
    key: { readonly attempt: number; readonly pass: number },
    inputOf: (node: NodeAddress) => JsonValue,
    onEnd: (node: NodeAddress, outcome: "done" | "failed") => void = () => undefined,
  ): Promise<Map<string, JsonValue>> {
    const { board } = this.#options;
    const results = new Map<string, JsonValue>();
    const failures: { node: NodeAddress; error: AppError }[] = [];
    await Promise.all(
      this.nodes.map(async (node) => {
        board.begin(node.name, name);
        try {
          results.set(node.name, await this.#phaseOn(node, name, key, inputOf(node)));
          board.end(node.name, "done");
          onEnd(node, "done");
        } catch (thrown) {
          const error = toAppError(thrown);
          failures.push({ node, error });
          board.end(node.name, "failed", error.message);
          onEnd(node, "failed");
        }
      }),
    );
    this.#options.context.signal.throwIfAborted();
    const first = failures[0];
    if (first !== undefined) throw failureOn(first.node, name, first.error);
    return results;
  }

  /** Releases all nodes; with a backup's id, what they stored becomes trusted. */
  async close(backup: string | null): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    this.#stop.abort(new AppError("cancelled", "The operation has ended."));
    await this.#renewing.catch(() => undefined);
    const { context } = this.#options;
    const body = { operation: context.id, lease: this.#lease, backup };
    await Promise.all(
      [...this.#leased.values()].map(async (node) => {
        try {
          const answer = await this.#call(node, "release", body, new AbortController().signal);
          const { problems = [], usage = [] } = releaseAnswerSchema.parse(answer);
          // What this process asked of its sites is counted here already.
          if (node.name !== this.#options.self.name) context.spent(usage);
          for (const problem of problems) context.say(`${node.name}: ${problem}`);
        } catch (thrown) {
          // The lease ends by itself if the node cannot be told.
          context.say(`${node.name}, release: ${toAppError(thrown).message}`);
        }
      }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close(null);
  }

  async #greet(nodes: readonly NodeAddress[], mayMiss: boolean): Promise<void> {
    const { site, context, cluster, version } = this.#options;
    const { repository } = site;
    const called = `${site.name} (${repository.site.location})`;
    const asked = { id: site.id, called };
    const body = { protocol: PROTOCOL_VERSION, cluster, version, site: asked };
    const answers = new Map<NodeAddress, HelloAnswer>();
    await Promise.all(
      nodes.map(async (node) => {
        try {
          const answer = await callNode(
            this.#options.doors,
            node,
            { method: "hello", body, answer: helloAnswerSchema },
            {
              timeoutMs: SHORT_CALL_TIMEOUT_MS,
              patienceMs: mayMiss ? 0 : Math.min(this.#options.patienceMs, 10_000),
              signal: context.signal,
            },
          );
          answers.set(node, answer);
        } catch (thrown) {
          const error = toAppError(thrown);
          if (!mayMiss || !error.retryable) throw error;
          this.#lost.set(node.name, error);
        }
      }),
    );
    await repository.catchUp(context.signal);
    const distrusted: HelloAnswer["distrusted"] = [];
    for (const [node, answer] of answers) {
      await this.#mustSeeTheSame(node, answer);
      this.#leased.set(node.name, node);
      this.#versions.set(node.name, answer.version);
      distrusted.push(...answer.distrusted);
    }
    const byName = new Map(distrusted.map((pack) => [`${pack.id}-${pack.birth}`, pack]));
    this.#distrusted = [...byName.values()].slice(0, DISTRUSTED_COUNT_MAX);
    if (this.#leased.size === 0) {
      throw new AppError("unavailable", "No node of the cluster answered.", {
        guidance: "Start `astacus server` on the nodes, or mend their addresses.",
      });
    }
  }

  /** Same repository, same site, and heads that lie on one chain. */
  async #mustSeeTheSame(node: NodeAddress, answer: HelloAnswer): Promise<void> {
    const { repository } = this.#options.site;
    const state = repository.state;
    const here = `${repository.site.location} (repository ${state.repositoryId}, site ${state.siteId})`;
    const there = `${answer.location} (repository ${answer.repository}, site ${answer.site})`;
    if (answer.node !== node.name) {
      throw new AppError(
        "refused",
        `At ${node.address} answers node ${answer.node}, not ${node.name}.`,
        {
          guidance: "Mend the addresses in the configuration, or start the server with --node.",
        },
      );
    }
    const { product } = this.#options;
    if (answer.product !== product) {
      throw new AppError(
        "refused",
        `Node ${node.name} is configured for product ${answer.product}, this node for ${product}.`,
        { guidance: "Give all nodes the same product; then reload them." },
      );
    }
    if (answer.repository !== state.repositoryId || answer.site !== state.siteId) {
      throw new AppError(
        "refused",
        `Node ${node.name} sees another repository: ${there}; here it is ${here}.`,
        {
          guidance: "All nodes must reach the same bucket, or mount the same directory.",
        },
      );
    }
    const bytes =
      answer.head.sequence > state.sequence
        ? undefined
        : await repository.entryBytes(answer.head.sequence);
    if (bytes === undefined || entryHash(bytes) !== answer.head.hash) {
      throw new AppError(
        "refused",
        `Node ${node.name} reads another history at ${answer.location} than this node at ${repository.site.location}: at entry ${answer.head.sequence} they differ.`,
        { guidance: "One of the two directories is a copy: mount the same one on all nodes." },
      );
    }
  }

  async #takeLeases(): Promise<void> {
    const { context, kind, self, restoreOf, site, mirrors = [] } = this.#options;
    const body = {
      ...(kind === "backup" ? { distrusted: this.#distrusted } : {}),
      operation: context.id,
      lease: this.#lease,
      kind,
      site: site.id,
      mirrors: mirrors.map((mirror) => ({ ...mirror })),
      coordinator: self.address,
      ttlMs: this.#options.leaseTimeMs,
    };
    // One after the other in a fixed order: two coordinators cannot each hold half.
    for (const node of [...this.#leased.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      const restore = restoreOf === undefined ? {} : { restore: restoreOf(node) };
      await this.#takeLease(node, { ...body, ...restore });
    }
  }

  /** Waits for the lease of a coordinator that is silent; it ends by itself. */
  async #takeLease(node: NodeAddress, body: JsonValue): Promise<void> {
    const { doors, context, leaseTimeMs } = this.#options;
    const patientUntil = doors.clock.monotonic() + leaseTimeMs * 2;
    for (let tries = 0; ; tries += 1) {
      try {
        await this.#call(node, "lease", body, context.signal);
        return;
      } catch (thrown) {
        const error = toAppError(thrown);
        const isSilent = error.context["holder"] === "silent";
        if (!isSilent || doors.clock.monotonic() >= patientUntil) {
          throw failureOn(node, "lease", error);
        }
        if (tries === 0)
          context.say(`${node.name}: ${error.message} Waiting for its lease to end.`);
      }
      await doors.clock.sleep(leaseTimeMs / LEASE_RENEWAL_COUNT, context.signal);
    }
  }

  async #renew(): Promise<void> {
    const { doors, context, leaseTimeMs } = this.#options;
    const body = { operation: context.id, lease: this.#lease };
    for (;;) {
      try {
        await doors.clock.sleep(leaseTimeMs / LEASE_RENEWAL_COUNT, this.#stop.signal);
      } catch {
        return;
      }
      // A refusal shows at the node's next phase call; silence is that call's business too.
      await Promise.all(
        this.nodes.map((node) =>
          this.#call(node, "renew", body, this.#stop.signal).catch(() => undefined),
        ),
      );
    }
  }

  #phaseOn(
    node: NodeAddress,
    name: string,
    key: { readonly attempt: number; readonly pass: number },
    input: JsonValue,
  ): Promise<JsonValue> {
    const { doors, context, patienceMs, board } = this.#options;
    const body = { operation: context.id, lease: this.#lease, ...key, name, input };
    return callNode(
      doors,
      node,
      { method: "phase", body, answer: jsonSchema },
      {
        timeoutMs: PHASE_CALL_TIMEOUT_MS,
        patienceMs,
        signal: context.signal,
        onEvent: (event) => {
          const parsed = phaseEventSchema.safeParse(event);
          if (parsed.success) board.event(node.name, parsed.data);
        },
      },
    );
  }

  #call(
    node: NodeAddress,
    method: string,
    body: JsonValue,
    signal: AbortSignal,
  ): Promise<JsonValue> {
    return callNode(
      this.#options.doors,
      node,
      { method, body, answer: jsonSchema },
      { timeoutMs: SHORT_CALL_TIMEOUT_MS, patienceMs: method === "release" ? 0 : 10_000, signal },
    );
  }
}

function failureOn(node: NodeAddress, what: string, error: AppError): AppError {
  return new AppError(error.kind, `Node ${node.name}, ${what}: ${error.message}`, {
    ...(error.guidance === undefined ? {} : { guidance: error.guidance }),
    retryable: error.retryable,
    context: { ...error.context, node: node.name },
    cause: error,
  });
}
