/**
 * One member of a cluster: its repository view, its node side, and the coordinator of whatever it
 * is asked for. This is the whole system behind the HTTP routes and the simulator alike; it knows
 * neither.
 */
import type { Database } from "bun:sqlite";
import type { Doors } from "../base/doors.ts";
import { AppError, toAppError } from "../base/error.ts";
import { joinPath } from "../base/path.ts";
import type { BackupArchive, BackupArchiveRequest } from "../cas/read/archive-backup.ts";
import { archiveBackup } from "../cas/read/archive-backup.ts";
import type { FrameDecoder } from "../cas/format/frame-decoder.ts";
import type { OpenLanes } from "../cas/read/restore-lanes.ts";
import type { DataPlane } from "../cas/write/plane.ts";
import type { RepositoryHeader } from "../cas/format/header.ts";
import type { Repository } from "../cas/log/repository.ts";
import type { Product } from "../products/product.ts";
import type { BackupResult } from "./backup-operation.ts";
import { runBackup } from "./backup-operation.ts";
import { BackupReader, LOOK_OF_A_PERSON } from "./backup-reader.ts";
import type { BackupDetail, BackupSummary } from "./backup-summary.ts";
import type { ClaimTable } from "./claims.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import type { CleanupRequest, EndedOperations } from "./maintenance.ts";
import { runCleanupOperation, runMarkOperation } from "./maintenance.ts";
import type { MemberConfig } from "./member-config.ts";
import { syncMirrors } from "./mirror-operation.ts";
import { promoteSite, updateSites } from "./promote-operation.ts";
import { handleClaimCall } from "./claim-calls.ts";
import { copyPacks } from "./copy-packs.ts";
import { runMigration } from "./migrate-operation.ts";
import type { MigrateRequest, MigrationPlan } from "./migrate-plan.ts";
import { planMigration } from "./migrate-plan.ts";
import { runLoss } from "./lose-site.ts";
import type { RetireRequest } from "./migrate-retire.ts";
import { runRetirement } from "./migrate-retire.ts";
import type { NodeAddress } from "./network.ts";
import { openScrubber, runScrubOperation } from "./node-scrub.ts";
import type { ScrubRequest } from "./node-scrub.ts";
import { NodeService } from "./node-service.ts";
import type { OperationContext, OperationKind, OperationRecord } from "./operations.ts";
import { Operations } from "./operations.ts";
import { parseRequest, runningRequestSchema } from "./protocol.ts";
import type { JsonValue, PhaseEvent } from "./protocol.ts";
import type { ClusterRestorePlan, RestoreRequest } from "./restore-operation.ts";
import { planRestore, runRestore } from "./restore-operation.ts";
import { sweepScratchFolder } from "./scratch-folder.ts";
import type { ScrubEvent, Scrubber } from "./scrub.ts";
import type { ConfiguredSite } from "./site-set.ts";
import { SiteSet } from "./site-set.ts";
import type { SiteStatus } from "./site-status.ts";
import type { OpenSite } from "./site-views.ts";
import type { ClusterStatus } from "./status.ts";
import { clusterStatus } from "./status.ts";
import type { VerifyRequest, VerifyResult } from "./verify-operation.ts";
import { runVerifyOperation } from "./verify-operation.ts";

/** What a member is made of. */
export type MemberOptions = {
  readonly config: MemberConfig;
  readonly doors: Doors;
  /** In the order of preference. */
  readonly sites: readonly ConfiguredSite[];
  readonly product: Product;
  readonly version: string;
  /** The write path for the chunks of a repository: workers, or inline in the simulator. */
  readonly openPlane: (header: RepositoryHeader) => DataPlane;
  /** The threads of a restore; in this one, as in the simulator, unless told. */
  readonly openLanes?: OpenLanes;
  /** How frames are decoded; in line, as in the simulator, unless told. */
  readonly decode?: FrameDecoder;
  /** Told of what scrubbing finds. */
  readonly onScrub?: (event: ScrubEvent) => void;
  readonly signal?: AbortSignal;
};

/** One node of a cluster; see the file's header. */
export class Member implements AsyncDisposable {
  readonly operations: Operations;
  readonly config: MemberConfig;
  readonly sites: SiteSet;
  /** Whoever keeps the member open runs it. */
  readonly scrubber: Scrubber;
  readonly #parts: Omit<CoordinatorParts, "site" | "repository" | "openSource">;
  readonly #node: NodeService;
  readonly #reader: BackupReader;
  readonly #database: Database;
  readonly #claims = new Map<string, ClaimTable>();

  private constructor(options: MemberOptions, sites: SiteSet) {
    const { config, doors } = options;
    this.config = config;
    this.sites = sites;
    this.#database = doors.databases.open(joinPath(config.dataFolder, "operations.sqlite"));
    this.operations = new Operations({
      database: this.#database,
      clock: doors.clock,
      random: doors.random,
      coordinator: config.node,
      sites: () => sites.configured,
    });
    this.#parts = {
      config,
      doors,
      sites,
      product: options.product,
      version: options.version,
      self: mustFindSelf(config),
      claims: this.#claims,
      claimsDatabase: () => doors.databases.open(joinPath(config.dataFolder, "claims.sqlite")),
    };
    this.#node = new NodeService({ ...options, sites });
    this.scrubber = openScrubber({
      config,
      doors,
      sites,
      database: this.#database,
      isBusy: () => this.#node.lease !== undefined || this.operations.running().some(isLeasing),
      ...(options.onScrub === undefined ? {} : { onEvent: options.onScrub }),
    });
    const { clock } = doors;
    this.#reader = new BackupReader({
      sites,
      config,
      clock,
      prove: (id) => this.scrubber.prover(id),
    });
  }

  /** Opens the node's sites. One that answers is enough; what is wrong with the others is shown. */
  static async open(options: MemberOptions): Promise<Member> {
    const { config, doors } = options;
    await sweepScratchFolder(doors, config.scratchFolder);
    const sites = new SiteSet({
      sites: options.sites,
      doors,
      node: config.node,
      dataFolder: config.dataFolder,
      concurrency: config.restore.concurrency,
      encryption: config.encryption,
      ...(options.decode === undefined ? {} : { decode: options.decode }),
    });
    try {
      await sites.begin(options.signal);
      return new Member(options, sites);
    } catch (thrown) {
      await sites[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /** This node's view of the repository: at the primary, else at the best site that it knows. */
  get repository(): Repository {
    return this.sites.current.repository;
  }

  /** Answers a call from another node (or this one). Errors say that it was this node that spoke. */
  async handle(
    method: string,
    body: unknown,
    options: { readonly signal: AbortSignal; readonly emit: (event: PhaseEvent) => void },
  ): Promise<JsonValue> {
    try {
      return await this.#answer(method, body, options);
    } catch (thrown) {
      const error = toAppError(thrown);
      // A server that is about to leave may be back in a moment: that is a silence to be waited out.
      if (error.context["reason"] === "shutting-down") throw error;
      throw new AppError(error.kind, error.message, {
        ...(error.guidance === undefined ? {} : { guidance: error.guidance }),
        retryable: error.retryable,
        context: { ...error.context, answered: true },
        cause: error,
      });
    }
  }

  startBackup(request: { readonly name?: string } = {}): OperationRecord {
    this.#mustBeAlone("backup");
    return this.operations.start("backup", { ...request }, async (context) => {
      return (await this.#backUp(context, request)) as unknown as JsonValue;
    });
  }

  async planRestore(request: RestoreRequest, signal: AbortSignal): Promise<ClusterRestorePlan> {
    const { site: first } = await this.sites.readable(signal);
    const site = this.#reader.siteWith(first, request.backup);
    return await planRestore(this.#partsOn(site), request, signal);
  }

  startRestore(request: RestoreRequest): OperationRecord {
    this.#mustBeAlone("restore");
    // Identities stay in memory: the journal is a file.
    const { identities: _, ...shown } = request;
    const journaled = JSON.parse(JSON.stringify(shown)) as JsonValue;
    return this.operations.start("restore", journaled, async (context) => {
      const parts = this.#partsOn(await this.#readFrom(context, request.backup));
      return (await runRestore(parts, context, request)) as unknown as JsonValue;
    });
  }

  startCleanup(request: CleanupRequest = {}): OperationRecord {
    const journaled = JSON.parse(JSON.stringify(request)) as JsonValue;
    return this.operations.start("cleanup", journaled, async (context) => {
      const parts = this.#partsOn(await this.sites.primary(context.signal));
      return await runCleanupOperation(parts, context, request, this.#endedOperations());
    });
  }

  /** Brings mirrors (all, or those named) what they lack, and the primary what landed elsewhere. */
  startSync(request: { readonly sites?: readonly string[] } = {}): OperationRecord {
    const { sites: names } = request;
    const journaled = JSON.parse(JSON.stringify(request)) as JsonValue;
    return this.operations.start("sync", journaled, async (context) => {
      const parts = this.#partsOn(await this.sites.primary(context.signal));
      for (const name of names ?? []) this.sites.mustName(name);
      const mirrors = await syncMirrors(parts, context, names === undefined ? {} : { names });
      return { mirrors };
    });
  }

  /** Makes a mirror the primary. */
  startPromote(request: { readonly site: string }): OperationRecord {
    return this.operations.start("promote", { ...request }, async (context) => {
      const parts = { sites: this.sites, config: this.config };
      return (await promoteSite(parts, context, request.site)) as unknown as JsonValue;
    });
  }

  /** Enters what this node's configuration says of the retention of its sites. */
  startUpdateSites(): OperationRecord {
    return this.operations.start("update-sites", {}, async (context) => {
      return (await updateSites(this.#parts, context)) as unknown as JsonValue;
    });
  }

  /** Verifies backups, or with `database` what the running database has of one. */
  startVerify(request: VerifyRequest): OperationRecord {
    return this.operations.start("verify", { ...request }, async (context) => {
      const { site: name } = request;
      const site = await (name === undefined
        ? this.#readFrom(context, request.backup)
        : this.sites.repository(name, context.signal));
      const result = await runVerifyOperation(this.#partsOn(site), context, request);
      if (request.database !== true) this.#noteVerified(site, result as unknown as VerifyResult);
      return result;
    });
  }

  /** Reads every pack of the sites (of all that answer, unless named), whatever the budget says. */
  startScrub(request: ScrubRequest = {}): OperationRecord {
    for (const name of request.sites ?? []) this.sites.mustName(name);
    const journaled = JSON.parse(JSON.stringify(request)) as JsonValue;
    return this.operations.start("scrub", journaled, (context) =>
      runScrubOperation(this.scrubber, context, request),
    );
  }

  /** What a migration from one site to another would do; changes nothing. */
  async planMigration(request: MigrateRequest, signal: AbortSignal): Promise<MigrationPlan> {
    return await planMigration(this.#parts, request, signal);
  }

  /** Brings the backups of one site to another and makes it the primary; see migrate-operation.ts. */
  startMigration(request: MigrateRequest): OperationRecord {
    this.#mustNotMigrate();
    const journaled = JSON.parse(JSON.stringify(request)) as JsonValue;
    return this.operations.start("migrate", journaled, async (context) => {
      return (await runMigration(this.#parts, context, request)) as unknown as JsonValue;
    });
  }

  /** Ends a site when all is proved elsewhere (migrate-retire.ts), or a lost one (lose-site.ts). */
  startRetirement(request: RetireRequest): OperationRecord {
    this.#mustNotMigrate();
    return this.operations.start("retire", { ...request }, async (context) => {
      const ending =
        request.lost === true
          ? runLoss(this.#parts, context, request.site)
          : runRetirement(this.#parts, context, request);
      return (await ending) as unknown as JsonValue;
    });
  }

  /** Forgets (`delete`), brings back (`undelete`), pins or unpins backups by name or id. */
  startMark(
    kind: "delete" | "undelete" | "pin" | "unpin",
    request: { readonly backups: readonly string[]; readonly reason?: string },
  ): OperationRecord {
    const journaled = JSON.parse(JSON.stringify(request)) as JsonValue;
    return this.operations.start(kind, journaled, async (context) => {
      const primary = await this.sites.primary(context.signal);
      const parts = this.#partsOn(this.#reader.siteWith(primary, request.backups[0]));
      return await runMarkOperation(parts, context, kind, request);
    });
  }

  /** All backups of the repository, oldest first; forgotten ones too if asked. */
  async listBackups(
    options: { readonly forgotten?: boolean; readonly signal?: AbortSignal } = {},
  ): Promise<BackupSummary[]> {
    return await this.#reader.list(options);
  }

  /** One backup with its nodes and problems. */
  async showBackup(wanted: string, signal?: AbortSignal): Promise<BackupDetail> {
    return await this.#reader.show(wanted, signal);
  }

  /** A backup's files as one archive, straight from the site: no node is asked. */
  async archive(request: BackupArchiveRequest, signal: AbortSignal): Promise<BackupArchive> {
    const site = await this.#reader.siteOf(request.backup, signal);
    const { repository, openSource, readManifest } = site;
    const { cluster } = this.config;
    const parts = { repository, source: openSource(), readManifest, cluster };
    return await archiveBackup(request, parts, signal);
  }

  async status(signal: AbortSignal): Promise<ClusterStatus> {
    const now = await this.sites.look(signal, LOOK_OF_A_PERSON);
    const parts = this.#partsOn(this.sites.current);
    const status = await clusterStatus(parts, this.operations, this.#node, { now, signal });
    const { notice, warnings } = this;
    return {
      ...status,
      ...(notice === undefined ? {} : { notice }),
      ...(warnings.length === 0 ? {} : { warnings }),
      sites: this.siteStatuses,
      scrub: this.scrubber.figures(),
    };
  }

  /** What is read at another site than the primary now, and why; undefined if nothing is. */
  get notice(): string | undefined {
    return this.#reader.notice;
  }

  /** What somebody should see to, whatever was asked: locks that end. */
  get warnings(): readonly string[] {
    return this.#reader.warnings;
  }

  /** All sites as of the last look. */
  get siteStatuses(): SiteStatus[] {
    return this.#reader.statuses;
  }

  /** All sites, asked now. */
  async listSites(signal?: AbortSignal): Promise<SiteStatus[]> {
    await this.sites.look(signal);
    return this.siteStatuses;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.operations.settle();
    await this.#node.close();
    this.#database.close();
    await this.sites[Symbol.asyncDispose]();
  }

  async #answer(
    method: string,
    body: unknown,
    options: { readonly signal: AbortSignal; readonly emit: (event: PhaseEvent) => void },
  ): Promise<JsonValue> {
    switch (method) {
      case "hello":
        return this.#node.hello(body);
      case "lease":
        return this.#node.takeLease(body);
      case "renew":
        return this.#node.renew(body);
      case "release":
        return this.#node.release(body);
      case "phase":
        return this.#node.phase(body, options);
      case "plan":
        return this.#node.plan(body, options.signal);
      case "running": {
        const { operation } = parseRequest(runningRequestSchema, "running", body);
        return { running: this.operations.running().some((record) => record.id === operation) };
      }
      case "copy-packs":
        return await copyPacks(this.sites, body, options);
      case "scrub":
        return this.scrubber.answer() as unknown as JsonValue;
      case "claim":
      case "settle":
      case "resolve":
        return handleClaimCall(this.#claims, method, body);
      default:
        throw new AppError("not-found", `This node knows no method ${method}.`, {
          guidance: "The nodes run different versions: bring all to the same one.",
        });
    }
  }

  /** A log that ends in the middle of a backup names its successor: then it begins again there. */
  async #backUp(
    context: OperationContext,
    request: { readonly name?: string },
  ): Promise<BackupResult> {
    const first = await this.sites.primary(context.signal);
    try {
      return await runBackup(this.#partsOn(first), context, request);
    } catch (thrown) {
      const error = toAppError(thrown);
      if (error.context["reason"] !== "closed") throw thrown;
      const next = await this.sites.primary(context.signal);
      if (next.id === first.id) throw thrown;
      context.say(`${error.message} Beginning again there.`);
      return await runBackup(this.#partsOn(next), context, request);
    }
  }

  #partsOn(site: OpenSite): CoordinatorParts {
    const { repository, openSource } = site;
    return { ...this.#parts, site, repository, openSource };
  }

  /** Where an operation reads a backup; it says so if that is not the primary. */
  async #readFrom(context: OperationContext, backup?: string): Promise<OpenSite> {
    const { site, notice } = await this.sites.readable(context.signal);
    if (notice !== undefined) context.say(notice);
    const found = this.#reader.siteWith(site, backup);
    if (found !== site) context.say(`Backup ${backup ?? ""} is read from site ${found.name}.`);
    return found;
  }

  /** One backup or restore per coordinator at a time: a second would only meet the first one's leases. */
  #mustBeAlone(kind: OperationKind): void {
    const other = this.operations.running().find((record) => isLeasing(record));
    if (other === undefined) return;
    throw new AppError("conflict", `A ${other.kind} is running (operation ${other.id}).`, {
      guidance: `Wait for it, or stop it with \`astacus cancel ${other.id}\`; then start the ${kind}.`,
      context: { reason: "lease-held", operation: other.id },
    });
  }

  /** Two at once do no harm, and on one node no good. */
  #mustNotMigrate(): void {
    const other = this.operations
      .running()
      .find(({ kind }) => kind === "migrate" || kind === "retire");
    if (other === undefined) return;
    throw new AppError("conflict", `A ${other.kind} is running (operation ${other.id}).`, {
      guidance: `\`astacus status\` shows how far it is; \`astacus cancel ${other.id}\` stops it.`,
      context: { operation: other.id },
    });
  }

  /** What was read whole and was right is proved for now; what is not right is not any more. */
  #noteVerified(site: OpenSite, { deep, backups }: VerifyResult): void {
    for (const { id, ok } of backups) {
      if (!ok) this.scrubber.noteDamaged(site.id, id);
      else if (deep) this.scrubber.noteVerified(site.id, id);
    }
  }

  #endedOperations(): EndedOperations {
    const ended = this.operations.list({ limit: 10_000 }).filter((one) => one.ended !== undefined);
    const restores = ended.filter((one) => one.kind === "restore");
    return {
      operations: new Set(ended.map((one) => one.id)),
      restores: new Set(restores.map((one) => one.id)),
    };
  }
}

/** A backup whose leases have ended only brings mirrors up to date, which may take long. */
function isLeasing({ kind, progress }: OperationRecord): boolean {
  return kind === "restore" || (kind === "backup" && progress?.phase !== "mirrors");
}

function mustFindSelf(config: MemberConfig): NodeAddress {
  const self = config.nodes.find((node) => node.name === config.node);
  if (self !== undefined) return self;
  throw new AppError("config", `Node ${config.node} is not among the cluster's nodes.`, {
    guidance: `They are ${config.nodes.map((node) => node.name).join(", ")}; use --node.`,
  });
}
