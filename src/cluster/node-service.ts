/**
 * One node's side of every operation: answers who it is, holds the lease, runs phases. A phase is
 * keyed by (attempt, pass, name): asking again attaches to the work under way or gives its result
 * once more, so a broken connection costs nothing. All work ends with its lease.
 */
import { AppError, toAppError } from "../base/error.ts";
import { makeFolders, removeFolder } from "../base/folders.ts";
import { joinPath } from "../base/path.ts";
import { DistrustedPacks } from "../cas/catalog/distrusted-packs.ts";
import type { DistrustedPack } from "../cas/catalog/distrusted-packs.ts";
import { StoredFiles } from "../cas/write/stored-files.ts";
import type { NodePhaseContext, Phase } from "../products/product.ts";
import type { Leased } from "./lease.ts";
import { LeaseHolder } from "./lease.ts";
import { NodeBackupSession } from "./node-backup.ts";
import type { NodeBase, NodeParts } from "./node-parts.ts";
import { nodePartsOn } from "./node-parts.ts";
import { placeOnNode, planOnNode } from "./node-restore.ts";
import { bringStatCache, mirrorTargets } from "./node-sites.ts";
import { isDamaged, withSoundIndex, worthAnotherAttempt } from "./sound-index.ts";
import { callNode } from "./network.ts";
import type { HelloAnswer, JsonValue, PhaseEvent, PhaseRequest } from "./protocol.ts";
import {
  helloRequestSchema,
  leaseNameSchema,
  leaseRequestSchema,
  parseRequest,
  phaseRequestSchema,
  placeInputSchema,
  planRequestSchema,
  PROTOCOL_VERSION,
  releaseRequestSchema,
  runningAnswerSchema,
  storeInputSchema,
} from "./protocol.ts";
import type { SiteUsage } from "./usage.ts";
import { meterUsage } from "./usage.ts";

type Work = {
  readonly result: Promise<JsonValue>;
  readonly listeners: Set<(event: PhaseEvent) => void>;
};

type Under = {
  readonly lease: Leased;
  /** On the site that the lease names. */
  readonly parts: NodeParts;
  /** What must have happened before the first phase. */
  readonly ready: Promise<void>;
  readonly works: Map<string, Work>;
  /** Phases that must run before the lease is over, whatever happens. */
  readonly due: Set<string>;
  /** What went wrong on the way out. */
  readonly problems: string[];
  /** What passed to each site since the lease began. */
  readonly measure: () => SiteUsage[];
  session: { readonly attempt: number; readonly backup: NodeBackupSession } | undefined;
};

/** A node that is only greeted shows what it saw so long ago. */
const HELLO_LOOK_MS = 1_000;
/** How long the holder of a lease may take to say whether its operation still runs. */
const ASK_TIMEOUT_MS = 5_000;

/** Handles the node methods of the wire protocol. */
export class NodeService {
  readonly #base: NodeBase;
  readonly #leases: LeaseHolder;
  #under: Under | undefined;

  constructor(base: NodeBase) {
    this.#base = base;
    this.#leases = new LeaseHolder(base.doors.clock);
  }

  /** The operation that holds this node's lease. */
  get lease(): { operation: string; kind: string } | undefined {
    const request = this.#leases.current;
    return request === undefined ? undefined : { operation: request.operation, kind: request.kind };
  }

  /** Ends the lease and all work under it. */
  async close(): Promise<void> {
    await this.#leases.close();
  }

  async hello(body: unknown): Promise<HelloAnswer> {
    const request = parseRequest(helloRequestSchema, "hello", body);
    const { config, sites, version, product } = this.#base;
    if (request.cluster !== config.cluster) {
      throw new AppError(
        "refused",
        `Node ${config.node} belongs to cluster ${config.cluster}, not to ${request.cluster}.`,
        { guidance: "Mend the address or the cluster's name in the configuration." },
      );
    }
    if (request.protocol !== PROTOCOL_VERSION) {
      throw new AppError(
        "refused",
        `Node ${config.node} (Astacus ${version}) speaks protocol ${PROTOCOL_VERSION}, the coordinator (Astacus ${request.version}) ${request.protocol}.`,
        { guidance: "Bring all nodes to one version; then run the command again." },
      );
    }
    const { site: asked } = request;
    const site =
      asked === undefined
        ? (await sites.readable(undefined, { maxAgeMs: HELLO_LOOK_MS })).site
        : await sites.bySiteId(asked.id, { called: asked.called });
    const { state } = site.repository;
    const zone = config.nodes.find((node) => node.name === config.node)?.zone ?? "";
    return {
      node: config.node,
      zone,
      version,
      protocol: PROTOCOL_VERSION,
      cluster: config.cluster,
      product: product.kind,
      repository: state.repositoryId,
      site: state.siteId,
      location: site.repository.site.location,
      head: { sequence: state.sequence, hash: state.entryHash },
      sites: sites.opened.map(({ id }) => id),
      distrusted: asked === undefined ? [] : new DistrustedPacks(site.catalog).list(state),
      lease: this.lease ?? null,
    };
  }

  async takeLease(body: unknown): Promise<JsonValue> {
    const request = parseRequest(leaseRequestSchema, "lease", body);
    const site = await this.#base.sites.bySiteId(request.site);
    try {
      await this.#leases.take(request);
    } catch (thrown) {
      await this.#endDeadLease(toAppError(thrown));
      await this.#leases.take(request);
    }
    if (this.#under?.lease.request.lease !== request.lease) {
      const lease = this.#leases.use(request.lease);
      const parts = nodePartsOn(this.#base, site);
      const ready =
        request.kind === "backup"
          ? bringStatCache(parts, site.id, lease.signal)
          : Promise.resolve();
      ready.catch(() => undefined); // the first phase throws it
      const under: Under = {
        lease,
        parts,
        ready,
        works: new Map(),
        due: new Set(),
        problems: [],
        measure: meterUsage(this.#base.sites.configured),
        session: undefined,
      };
      this.#under = under;
      lease.onEnd(() => this.#cleanUp(under));
    }
    return {};
  }

  /** Ends a lease whose coordinator says that its operation is over; else throws why it stands. */
  async #endDeadLease(busy: AppError): Promise<void> {
    const held = this.#leases.current;
    if (held === undefined || busy.context["reason"] !== "lease-held") throw busy;
    let isRunning: boolean;
    try {
      const { running } = await callNode(
        this.#base.doors,
        { name: "coordinator", address: held.coordinator, zone: "" },
        {
          method: "running",
          body: { operation: held.operation },
          answer: runningAnswerSchema,
        },
        { timeoutMs: ASK_TIMEOUT_MS, patienceMs: 0, signal: new AbortController().signal },
      );
      isRunning = running;
    } catch (thrown) {
      // Dead, or behind a cut cable: only time tells.
      throw new AppError("conflict", `${busy.message} Its coordinator does not answer.`, {
        guidance: "The lease ends by itself; try again in a minute.",
        context: { ...busy.context, holder: "silent" },
        cause: thrown,
      });
    }
    if (isRunning) throw busy;
    await this.#leases.release(held.lease);
  }

  renew(body: unknown): JsonValue {
    this.#leases.renew(parseRequest(leaseNameSchema, "renew", body).lease);
    return {};
  }

  /** Ends the lease; with a backup id, what this node stored becomes trusted. */
  async release(body: unknown): Promise<JsonValue> {
    const request = parseRequest(releaseRequestSchema, "release", body);
    const under = this.#under;
    const isOurs = under?.lease.request.lease === request.lease;
    try {
      if (request.backup !== null && isOurs) {
        await under.parts.repository.catchUp();
        under.session?.backup.committed(request.backup);
      }
    } catch (thrown) {
      // Untrusted rows cost the next backup some look-ups; a lease that stays costs the backup.
      under?.problems.push(`trusting what was stored: ${toAppError(thrown).message}`);
    } finally {
      await this.#leases.release(request.lease);
    }
    return isOurs ? { problems: under.problems, usage: under.measure() } : { problems: [] };
  }

  /** Runs a phase or attaches to it; resolves with its result. */
  async phase(
    body: unknown,
    options: { readonly emit: (event: PhaseEvent) => void; readonly signal: AbortSignal },
  ): Promise<JsonValue> {
    const request = parseRequest(phaseRequestSchema, "phase", body);
    this.#leases.use(request.lease);
    const under = this.#under;
    if (under === undefined || under.lease.request.lease !== request.lease) {
      throw new AppError("conflict", "This lease is not in force on this node.", {
        context: { reason: "lease-lost" },
      });
    }
    const key = `${request.attempt}/${request.pass}/${request.name}`;
    let work = under.works.get(key);
    if (work === undefined) {
      const listeners = new Set<(event: PhaseEvent) => void>();
      const result = this.#runPhase(under, request, (event) => {
        for (const listener of listeners) listener(event);
      });
      result.catch(() => undefined); // who attaches gets the error; nobody may be there now
      work = { result, listeners };
      under.works.set(key, work);
    }
    work.listeners.add(options.emit);
    try {
      return await raceAbort(work.result, options.signal);
    } finally {
      work.listeners.delete(options.emit);
    }
  }

  async plan(body: unknown, signal: AbortSignal): Promise<JsonValue> {
    const request = parseRequest(planRequestSchema, "plan", body);
    const site = await this.#base.sites.bySiteId(request.site, { signal });
    const plan = () => planOnNode(nodePartsOn(this.#base, site), request, signal);
    return { volumes: await withSoundIndex(site.repository, signal, plan) };
  }

  async #runPhase(
    under: Under,
    request: PhaseRequest,
    emit: (event: PhaseEvent) => void,
  ): Promise<JsonValue> {
    const { parts } = under;
    const signal = under.lease.signal;
    await under.ready;
    switch (request.name) {
      case "store": {
        const input = parseRequest(storeInputSchema, "store", request.input);
        const session = await this.#sessionFor(under, request.attempt, input.lookUpAll, emit);
        const context = this.#context(under, request, input.product, emit);
        return this.#orSoundNextTime(under, () => session.store(context));
      }
      case "settle":
        return this.#orSoundNextTime(under, () => this.#mustHaveSession(under, request).settle());
      case "finish":
        return this.#orSoundNextTime(under, () => this.#mustHaveSession(under, request).finish());
      case "place": {
        const input = parseRequest(placeInputSchema, "place", request.input);
        const context = this.#context(under, request, input.product, emit);
        const place = () => placeOnNode(parts, { input, context, emit, signal });
        return withSoundIndex(parts.repository, signal, place);
      }
      default:
        return this.#runProductPhase(under, request, emit);
    }
  }

  /** A share that met damage cannot go on; the next attempt finds an index that was built again. */
  async #orSoundNextTime(under: Under, work: () => Promise<JsonValue>): Promise<JsonValue> {
    try {
      return await work();
    } catch (thrown) {
      if (!isDamaged(thrown)) throw thrown;
      await under.parts.repository.rebuildIndex(under.lease.signal);
      throw worthAnotherAttempt(thrown);
    }
  }

  async #runProductPhase(
    under: Under,
    request: PhaseRequest,
    emit: (event: PhaseEvent) => void,
  ): Promise<JsonValue> {
    const { product } = this.#base;
    const kind = under.lease.request.kind;
    const phases: readonly Phase[] =
      kind === "backup" ? product.backupPhases : product.restorePhases;
    const phase = phases.find((candidate) => candidate.name === request.name);
    if (phase === undefined || phase.on !== "nodes") {
      throw new AppError("refused", `Product ${product.kind} has no node phase ${request.name}.`, {
        guidance: "The nodes may run different versions: bring all to the same one.",
      });
    }
    const { always = false } = phase;
    if (!always) for (const name of alwaysNames(phases)) under.due.add(name);
    const context = this.#context(under, request, request.input, emit);
    const { distrusted = [] } = under.lease.request;
    makeFolders(context.doors.files, context.scratch);
    // What a second attempt will trust is not known before it stores.
    const knowsStored = kind === "backup" && request.attempt === 0;
    const result = await phase.run(
      knowsStored ? withStored(under.parts, context, distrusted) : context,
    );
    if (always) under.due.delete(phase.name);
    return result as JsonValue;
  }

  /** What a product has begun on this node it ends here, though its coordinator may be dead. */
  async #runDue(under: Under): Promise<void> {
    const { product } = this.#base;
    const { request } = under.lease;
    const phases = request.kind === "backup" ? product.backupPhases : product.restorePhases;
    for (const phase of phases) {
      if (phase.on !== "nodes" || !under.due.has(phase.name)) continue;
      const asked = { ...request, attempt: 0, pass: 0, name: phase.name, input: null };
      const { signal } = new AbortController();
      try {
        const context = this.#context(under, asked, null, () => undefined);
        makeFolders(context.doors.files, context.scratch);
        await phase.run({ ...context, signal });
      } catch (thrown) {
        under.problems.push(`${phase.name}: ${toAppError(thrown).message}`);
      }
    }
  }

  #context(
    under: Under,
    request: PhaseRequest,
    input: JsonValue,
    emit: (event: PhaseEvent) => void,
  ): NodePhaseContext {
    const { config, doors } = this.#base;
    const { restore } = under.lease.request;
    return {
      doors,
      operation: request.operation,
      signal: under.lease.signal,
      say: (message) => emit({ message }),
      node: config.node,
      zone: config.nodes.find((node) => node.name === config.node)?.zone ?? "",
      scratch: joinPath(config.scratchFolder, request.operation),
      input,
      ...(restore === undefined ? {} : { restore }),
    };
  }

  async #sessionFor(
    under: Under,
    attempt: number,
    lookUpAll: boolean,
    emit: (event: PhaseEvent) => void,
  ): Promise<NodeBackupSession> {
    await under.session?.backup.close();
    const { lease, parts } = under;
    const backup = await NodeBackupSession.open(parts, {
      lease,
      lookUpAll,
      mirrors: await mirrorTargets(parts, lease.request.mirrors, lease.signal),
      emit,
    });
    under.session = { attempt, backup };
    return backup;
  }

  #mustHaveSession(under: Under, request: PhaseRequest): NodeBackupSession {
    const session = under.session;
    if (session === undefined || session.attempt !== request.attempt) {
      throw new AppError("conflict", `Phase ${request.name} needs what this node has lost.`, {
        guidance: "The node restarted; the operation is tried again by itself.",
        context: { reason: "lease-lost" },
      });
    }
    return session.backup;
  }

  async #cleanUp(under: Under): Promise<void> {
    await Promise.allSettled([
      under.ready,
      ...[...under.works.values()].map((work) => work.result),
    ]);
    try {
      await under.session?.backup.close();
      await this.#runDue(under);
      const { config, doors } = this.#base;
      const scratch = joinPath(config.scratchFolder, under.lease.request.operation);
      await removeFolder(doors.files, scratch, () => doors.clock.sleep(0));
    } catch (thrown) {
      under.problems.push(toAppError(thrown).message);
    } finally {
      under.session = undefined;
      if (this.#under === under) this.#under = undefined;
    }
  }
}

function withStored(
  parts: NodeParts,
  context: NodePhaseContext,
  distrusted: readonly DistrustedPack[],
): NodePhaseContext {
  const { catalog, config, repository } = parts;
  const stored = new StoredFiles({
    catalog,
    state: () => repository.state,
    node: config.node,
    operation: context.operation,
    distrusted,
    settings: config.backup,
  });
  return { ...context, isStored: (volume, path, stat) => stored.isStored(volume, path, stat) };
}

function alwaysNames(phases: readonly Phase[]): string[] {
  return phases.filter((one) => one.on === "nodes" && one.always === true).map(({ name }) => name);
}

/** The promise, or the signal's reason, whichever is first. */
function raceAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
