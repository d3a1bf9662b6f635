/**
 * The life of a node inside a server: opened in the background and again until it works, so that
 * the server listens from the first moment and says what it waits for; opened anew after a change of
 * the configuration as soon as nothing runs. Holds at most one open node at a time.
 */
import type { Clock } from "../base/doors.ts";
import { AppError, toAppError } from "../base/error.ts";
import { newestComplete } from "../cas/log/state.ts";
import { helloAnswerSchema, PROTOCOL_VERSION } from "../cluster/protocol.ts";
import type { OpenNode } from "./compose.ts";
import type { Config } from "./config.ts";
import type { Log } from "./log.ts";
import type { BackupFigures } from "./metrics.ts";
import type { Applied, Readiness } from "./server-context.ts";

/** Between two tries to open the repository. */
const RETRY_MS = 3_000;
/** Between two looks whether a reload may happen. */
const IDLE_CHECK_MS = 500;

/** What a runtime needs. */
export type NodeRuntimeOptions = {
  readonly clock: Clock;
  readonly log: Log;
  readonly version: string;
  readonly open: (config: Config, signal: AbortSignal) => Promise<OpenNode>;
};

/** Opens, reopens and closes the node of a server. */
export class NodeRuntime implements AsyncDisposable {
  readonly #options: NodeRuntimeOptions;
  readonly #stopped = new AbortController();
  #config: Config;
  #applied: Config;
  #node: OpenNode | undefined;
  #reason = new AppError("unavailable", "The node is starting.");
  #changed = Promise.withResolvers<void>();
  /** Resolved and renewed after each step of the loop. */
  #step = Promise.withResolvers<void>();
  /** What the newest configuration met last; undefined while nothing is known. */
  #met: { readonly config: Config; readonly applied: Applied } | undefined;
  readonly #loop: Promise<void>;

  constructor(config: Config, options: NodeRuntimeOptions) {
    this.#options = options;
    this.#config = config;
    this.#applied = config;
    this.#loop = this.#run();
  }

  /** The configuration of now; tokens of it count at once, the rest when the node was reopened. */
  get config(): Config {
    return this.#config;
  }

  /** The open node, if there is one. */
  get node(): OpenNode | undefined {
    return this.#node;
  }

  get readiness(): Readiness {
    if (this.#node !== undefined) return { ready: true };
    const { message, guidance } = this.#reason;
    return { ready: false, reason: message, ...(guidance === undefined ? {} : { guidance }) };
  }

  /** The member; throws AppError `unavailable` with the reason while there is none. */
  mustGetNode(): OpenNode {
    if (this.#node !== undefined) return this.#node;
    const { message, guidance } = this.#reason;
    throw new AppError("unavailable", `This node is not ready: ${message}`, {
      ...(guidance === undefined ? {} : { guidance }),
      context: { reason: "not-ready" },
      cause: this.#reason,
    });
  }

  /** What the metrics tell of backups: from memory, without a request. */
  get backups(): BackupFigures | undefined {
    if (this.#node === undefined) return undefined;
    const { state } = this.#node.member.repository;
    const newest = newestComplete(state, this.#applied.cluster);
    const listed = [...state.backups.values()].filter((one) => one.forgotten === undefined);
    const newestEndedMs = newest === undefined ? undefined : Date.parse(newest.ended);
    const isNewestDegraded = newest?.degraded === true;
    return { count: listed.length, newestEndedMs, isNewestDegraded };
  }

  /** Takes another configuration: its tokens at once, the rest when nothing runs here. */
  apply(config: Config): void {
    this.#config = config;
    this.#changed.resolve();
  }

  /** What becomes of the configuration that was taken last; waited for so long at most. */
  async whenApplied(waitMs: number): Promise<Applied> {
    const config = this.#config;
    const enough = new AbortController();
    const late = this.#options.clock.sleep(waitMs, enough.signal).then(
      () => true,
      () => true,
    );
    try {
      for (;;) {
        if (this.#met?.config === config) return this.#met.applied;
        // A newer one has taken its place, or the server ends.
        if (this.#config !== config || this.#stopped.signal.aborted) break;
        const isLate = await Promise.race([late, this.#step.promise.then(() => false)]);
        if (isLate) break;
      }
    } finally {
      enough.abort();
    }
    return { node: "opening", reason: this.#reason.message };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped.abort();
    this.#changed.resolve();
    this.#step.resolve();
    await this.#loop;
    const node = this.#node;
    this.#node = undefined;
    this.#reason = new AppError("unavailable", "This server is shutting down.");
    await node?.[Symbol.asyncDispose]();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      const isNew = this.#config !== this.#applied;
      if (this.#node === undefined) await this.#tryToOpen();
      else if (isNew) await this.#closeWhenIdle(this.#node);
      this.#step.resolve();
      this.#step = Promise.withResolvers<void>();
      if (signal.aborted) return;
      if (this.#config === this.#applied && this.#node !== undefined) await this.#change();
      else if (this.#node !== undefined) await this.#pause(IDLE_CHECK_MS);
      else if (this.#config === this.#applied) await this.#pause(RETRY_MS);
    }
  }

  /** Until there is another configuration, or the end. */
  async #change(): Promise<void> {
    await this.#changed.promise;
    this.#changed = Promise.withResolvers<void>();
  }

  async #pause(ms: number): Promise<void> {
    await this.#options.clock.sleep(ms, this.#stopped.signal).catch(() => undefined);
  }

  async #tryToOpen(): Promise<void> {
    const { log, open } = this.#options;
    const config = this.#config;
    this.#applied = config;
    try {
      this.#node = await open(config, this.#stopped.signal);
      this.#met = { config, applied: { node: "open" } };
      const { member } = this.#node;
      log.info("the node is ready", {
        cluster: config.cluster,
        site: member.sites.current.name,
        location: member.repository.site.location,
        sequence: member.repository.state.sequence,
      });
    } catch (thrown) {
      if (this.#stopped.signal.aborted) return;
      const error = toAppError(thrown);
      // The same trouble again is not news.
      if (error.message !== this.#reason.message) log.warn("the node is not ready", { error });
      this.#reason = error;
      const { message: reason, guidance } = error;
      const why = guidance === undefined ? { reason } : { reason, guidance };
      this.#met = { config, applied: { node: "failed", ...why } };
    }
  }

  /** Closes the node so that it is opened anew, unless it works, for itself or for another node. */
  async #closeWhenIdle(node: OpenNode): Promise<void> {
    const config = this.#config;
    const busy = await this.#whyBusy(node);
    if (busy !== undefined) {
      this.#met = { config, applied: { node: "busy", reason: busy } };
      return;
    }
    this.#node = undefined;
    this.#reason = new AppError("unavailable", "The node is being opened with its new settings.");
    await node[Symbol.asyncDispose]();
  }

  /** Why a node is not to be closed now. */
  async #whyBusy(node: OpenNode): Promise<string | undefined> {
    const [running] = node.member.operations.running();
    if (running !== undefined) return `A ${running.kind} runs (operation ${running.id}).`;
    return (await this.#isLeased(node)) ? "Another node has leased it." : undefined;
  }

  async #isLeased(node: OpenNode): Promise<boolean> {
    const { cluster } = node.member.config;
    const hello = { protocol: PROTOCOL_VERSION, cluster, version: this.#options.version };
    const signal = this.#stopped.signal;
    try {
      const answer = await node.member.handle("hello", hello, { signal, emit: () => {} });
      return helloAnswerSchema.parse(answer).lease !== null;
    } catch {
      // A site that does not answer must not keep new settings away that may mend it.
      return false;
    }
  }
}
