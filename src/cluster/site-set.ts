/**
 * The sites of a node: opened when they are needed, each with its own repository and catalog, and
 * asked what they are. What a site is stands in the log (site-roles.ts); the configuration says only
 * which sites can be reached. A site that does not answer, or is not the repository that it should
 * be, costs the others a short wait at most. Where one site is configured there is nothing to
 * decide, and its errors are passed on as they are.
 */
import type { Doors } from "../base/doors.ts";
import { AppError, toAppError } from "../base/error.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";
import type { FrameDecoder } from "../cas/format/frame-decoder.ts";
import type { EntryBodies } from "../cas/log/entry.ts";
import { readHeader } from "../cas/log/header-object.ts";
import { Repository } from "../cas/log/repository.ts";
import type { RepositoryState, Roles } from "../cas/log/state.ts";
import type { ChunkSource } from "../cas/read/chunk-source.ts";
import type { SiteLimits } from "../sites/limited-site.ts";
import type { Prices, Usage } from "../sites/prices.ts";
import type { Site } from "../sites/site.ts";
import { enterRoles } from "./enter-roles.ts";
import type { NodeEncryption } from "./member-config.ts";
import { ReadFaults } from "./read-faults.ts";
import { SiteCatalogs } from "./site-catalogs.ts";
import { SiteLocks } from "./site-locks.ts";
import { endedPrimary, lackingSite, nameInRoles, silentSite } from "./site-refusals.ts";
import type { FoundSite, SiteRole } from "./site-roles.ts";
import { bodyOfRoles, planRoles, rolesNow } from "./site-roles.ts";
import { SiteSources, slowMsWith } from "./site-sources.ts";
import type { ReadManifest, SourceHow } from "./site-sources.ts";
import type { OpenSite, Readable, SeenSite, SitesNow, SiteView } from "./site-views.ts";
import { byFreshness, nextToRead, notThePrimary, viewSites } from "./site-views.ts";
import { raceAbort, within } from "./within.ts";

/** A site that the configuration names. */
export type ConfiguredSite = {
  readonly name: string;
  /** What it is as long as no `role` entry speaks of it. */
  readonly firstRole: SiteRole;
  /** What it keeps, where that is not what all keep. */
  readonly retention?: RetentionPolicy;
  /** Connects; the set closes it. */
  readonly open: () => Promise<Site>;
  /** What passed to it since it was opened; undefined while it was not. */
  readonly usage?: () => Usage | undefined;
  readonly prices?: Prices;
  /** To what this node is held. */
  readonly limits?: SiteLimits;
};

export type SiteSetOptions = {
  /** In the order of preference; at least one. */
  readonly sites: readonly ConfiguredSite[];
  readonly doors: Pick<Doors, "clock" | "random" | "databases">;
  readonly node: string;
  /** The node's own folder, where catalogs lie. */
  readonly dataFolder: string;
  /** Of the chunk sources. */
  readonly concurrency: number;
  readonly decode?: FrameDecoder;
  readonly encryption?: NodeEncryption | undefined;
};

/** How long one of several sites may take to show the end of its log. */
const LOOK_TIMEOUT_MS = 5_000;
/** A site that did not answer is not asked again within this time, unless somebody waits. */
const FAILURE_KEPT_MS = 15_000;
/** How long it may then take for whoever waits: a dead one must not hold up each command. */
const ASK_AGAIN_TIMEOUT_MS = 1_000;
/** How old the last look may be that tells where to read on, and what is there. */
const NEXT_LOOK_MS = 1_000;
/** A primary that was waited for may be none by then. */
const PRIMARY_TRY_COUNT_MAX = 4;

/** How old a look may be, and whether a site that has failed lately is asked again. */
export type LookOptions = {
  /** An earlier look that is no older will do. */
  readonly maxAgeMs?: number;
  /** A person waits: what failed a moment ago may be back, and is asked, if only for a second. */
  readonly asksAgain?: boolean;
};

type Slot = {
  readonly configured: ConfiguredSite;
  site: Promise<Site> | undefined;
  opening: Promise<OpenSite> | undefined;
  open: OpenSite | undefined;
  location: string | undefined;
  failed: { readonly error: AppError; readonly atMs: number } | undefined;
};

/** The sites of one node; see the file's header. */
export class SiteSet implements AsyncDisposable {
  /** What sites did not give as they should have. */
  readonly faults = new ReadFaults();
  readonly sources: SiteSources;
  readonly locks: SiteLocks;
  readonly #options: SiteSetOptions;
  readonly #slots: readonly Slot[];
  readonly #catalogs: SiteCatalogs;
  readonly #stop = new AbortController();
  /** `isKept`: it shows failures of which nobody knows whether they still hold. */
  #last: { readonly now: SitesNow; readonly atMs: number; readonly isKept: boolean } | undefined;

  constructor(options: SiteSetOptions) {
    this.#options = options;
    this.#slots = options.sites.map((configured) => ({
      configured,
      site: undefined,
      opening: undefined,
      open: undefined,
      location: undefined,
      failed: undefined,
    }));
    this.#catalogs = new SiteCatalogs(options.doors.databases, options.dataFolder);
    const { concurrency, decode, doors, encryption } = options;
    this.locks = new SiteLocks(doors.clock, this.#catalogs);
    const looked = () => this.look(this.#stop.signal, { maxAgeMs: NEXT_LOOK_MS });
    this.sources = new SiteSources({
      clock: doors.clock,
      concurrency,
      ...(decode === undefined ? {} : { decode }),
      identities: encryption?.identities,
      faults: this.faults,
      slowMsOf: (name) => slowMsWith(this.#mustGetSlot(name).configured.limits),
      next: this.#slots.length === 1 ? undefined : async (used) => nextToRead(await looked(), used),
    });
  }

  /** Names of the configured sites, in their order. */
  get names(): readonly string[] {
    return this.#slots.map(({ configured }) => configured.name);
  }

  /** The sites as the configuration names them, in its order. */
  get configured(): readonly ConfiguredSite[] {
    return this.#slots.map(({ configured }) => configured);
  }

  /** The catalogs of this node, of sites that do not answer too. */
  get catalogs(): SiteCatalogs {
    return this.#catalogs;
  }

  /** Sites that have been opened since the start, without a look at any of them. */
  get opened(): readonly OpenSite[] {
    return this.#slots.flatMap(({ open }) => (open === undefined ? [] : [open]));
  }

  /** What the last look saw; no site is asked. */
  get last(): SitesNow | undefined {
    return this.#last?.now;
  }

  /** The site that answers best for all, as far as is known; throws if none was ever open. */
  get current(): OpenSite {
    const primary = this.#last?.now.sites.find(({ role }) => role === "primary");
    const open = this.opened.find(({ id }) => id === primary?.id) ?? this.opened[0];
    if (open !== undefined) return open;
    throw new AppError("unavailable", "No site has answered yet.");
  }

  /** Waits until one site answers; throws what is wrong with the first if none does. */
  async begin(signal?: AbortSignal): Promise<void> {
    const now = await this.look(signal);
    if (now.sites.some(({ open }) => open !== undefined)) return;
    if (this.#slots.length > 1) {
      // What takes long the first time goes on meanwhile.
      const tries = this.names.map((name) => this.repository(name, signal));
      const any = await Promise.any(tries).catch(() => undefined);
      if (any !== undefined) return;
    }
    signal?.throwIfAborted();
    throw this.#slots[0]!.failed?.error ?? new AppError("unavailable", "No site has answered.");
  }

  /** The site of a name, opened and caught up. Waits as long as the site's own retries do. */
  async repository(name: string, signal?: AbortSignal): Promise<OpenSite> {
    const open = await this.#open(this.#mustGetSlot(name), signal);
    await open.repository.catchUp(signal);
    return open;
  }

  /** The site with this id, opened and caught up; refuses one that this node cannot reach. */
  async bySiteId(
    id: string,
    options: {
      readonly called?: string | undefined;
      readonly signal?: AbortSignal | undefined;
    } = {},
  ): Promise<OpenSite> {
    const { signal } = options;
    const known = this.#slots.find((slot) => this.#idOf(slot) === id);
    if (known !== undefined) return await this.repository(known.configured.name, signal);
    const now = await this.look(signal);
    const found = now.sites.find((site) => site.isConfigured && site.id === id)?.open;
    if (found !== undefined) return found;
    const silent = this.#slots.find((slot) => this.#idOf(slot) === undefined);
    const called = options.called ?? nameInRoles(now.roles, id) ?? `site ${id}`;
    if (silent?.failed !== undefined && silent.failed.error.retryable) {
      throw silentSite(silent.configured.name, this.#options.node, silent.failed.error);
    }
    throw this.#lacking(id, called);
  }

  /** What this node last saw of a site's log, whether or not it answers; undefined if nothing. */
  stateOf({ id, name }: Pick<SiteView, "id" | "name">): RepositoryState | undefined {
    const open = this.opened.find((one) => one.id === id || one.name === name);
    if (open !== undefined) return open.repository.state;
    return id === undefined ? undefined : this.#catalogs.stateOf(id);
  }

  /** A source of chunks over a site that is open. */
  source(name: string): ChunkSource {
    const { open } = this.#mustGetSlot(name);
    if (open !== undefined) return open.openSource();
    throw new AppError("unavailable", `Site ${name} is not open.`);
  }

  /**
   * Asks all sites for the end of their logs. What does not answer in time is in the answer with its
   * error.
   */
  async look(signal?: AbortSignal, options: LookOptions = {}): Promise<SitesNow> {
    const { clock } = this.#options.doors;
    const { maxAgeMs = 0, asksAgain = maxAgeMs === 0 } = options;
    const startMs = clock.monotonic();
    const last = this.#last;
    if (last !== undefined && startMs - last.atMs < maxAgeMs && !(asksAgain && last.isKept)) {
      return last.now;
    }
    const isPatient = maxAgeMs === 0;
    let isKept = false;
    const errors = await Promise.all(
      this.#slots.map(async (slot) => {
        const kept = isPatient ? undefined : this.#keptFailure(slot);
        if (kept === undefined) return await this.#lookAt(slot, LOOK_TIMEOUT_MS, signal);
        if (asksAgain) return await this.#lookAt(slot, ASK_AGAIN_TIMEOUT_MS, signal);
        isKept = true;
        return kept;
      }),
    );
    signal?.throwIfAborted();
    const now = this.#viewOf(errors);
    if (now.roles !== undefined) this.#catalogs.rememberRoles(now.roles);
    this.#last = { now, atMs: clock.monotonic(), isKept };
    return now;
  }

  /**
   * Asks all sites what they are, and says it where it was not known: the best `role` entry is copied
   * to sites that lack it, and sites that none speaks of are entered.
   */
  async roles(signal?: AbortSignal): Promise<SitesNow> {
    const now = await this.look(signal);
    if (this.#slots.length === 1 && now.roles === undefined) return now;
    // Nobody but the primary of the configuration may be the first one, however long it is away.
    const primary = now.sites.find(({ role }) => role === "primary");
    if (now.roles === undefined && primary?.open === undefined) return now;
    const planned = planRoles(now.roles, this.#found());
    const body = planned ?? (now.roles === undefined ? undefined : bodyOfRoles(now.roles));
    if (body === undefined) return now;
    const at = this.#answering().find(({ id }) => id === body.primary)?.repository.state;
    if (at === undefined || at.closed !== undefined) return now;
    if (!(await this.enterRoles(body, signal))) return now;
    return await this.look(signal);
  }

  /**
   * Commits roles at every site that answers and lacks them, the primary first, which must answer;
   * true if the sites are to be looked at again.
   */
  async enterRoles(body: EntryBodies["role"], signal?: AbortSignal): Promise<boolean> {
    return await enterRoles(this.#answering(), body, { operation: this.#newOperation(), signal });
  }

  /**
   * The primary, caught up: where operations that write begin. Refuses where this node's
   * configuration lacks it, naming it; AppError `unavailable` if it does not answer.
   */
  async primary(signal?: AbortSignal): Promise<OpenSite> {
    for (let count = 1; count <= PRIMARY_TRY_COUNT_MAX; count += 1) {
      const now = await this.roles(signal);
      const view = now.sites.find(({ role }) => role === "primary");
      if (view?.open !== undefined) return view.open;
      const open = await this.#awaitPrimary(now.roles, view, signal);
      // It may have been taken by its name, or for what it was when those who answered heard of it.
      const { roles } = await this.look(signal);
      if (roles === undefined || roles.primary === open.id) return open;
    }
    throw new AppError("conflict", "The primary is being changed all the time.", {
      guidance: "Try again later; `astacus site list` shows what each site is.",
      retryable: true,
    });
  }

  /** Waits for the site that a look took for the primary. */
  async #awaitPrimary(
    roles: Roles | undefined,
    view: SiteView | undefined,
    signal?: AbortSignal,
  ): Promise<OpenSite> {
    if (view === undefined) {
      if (roles !== undefined) throw endedPrimary(roles);
      return await this.repository(this.#slots[0]!.configured.name, signal);
    }
    if (!view.isConfigured) {
      throw this.#lacking(view.id ?? "", `${view.name} (${view.location ?? "unknown place"})`);
    }
    try {
      return await this.repository(view.name, signal);
    } catch (thrown) {
      signal?.throwIfAborted();
      if (this.#slots.length === 1) throw thrown;
      throw silentSite(view.name, this.#options.node, toAppError(thrown));
    }
  }

  /** The primary, or the best site that answers, with a notice that says so. */
  async readable(signal?: AbortSignal, options: LookOptions = {}): Promise<Readable> {
    const now = await this.look(signal, options);
    const found = this.readableOf(now);
    if (found !== undefined) return found;
    const view = now.sites.find(({ role }) => role === "primary") ?? now.sites[0]!;
    throw view.error ?? this.#lacking(view.id ?? "", view.name);
  }

  /** The same of a look that was taken; undefined if no site answered. */
  readableOf(now: SitesNow): Readable | undefined {
    const view = now.sites.find(({ role }) => role === "primary") ?? now.sites[0]!;
    if (view.open !== undefined) return { site: view.open };
    const [best] = now.sites.filter(({ open }) => open !== undefined).toSorted(byFreshness);
    if (best?.open === undefined) return undefined;
    const why = view.isConfigured
      ? (view.error?.message ?? "it was not asked.")
      : `node ${this.#options.node} is not configured for it.`;
    const { name: site, role = "site" } = best;
    return { site: best.open, notice: notThePrimary(view.name, { why, role, site }) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new AppError("cancelled", "The node is closing its sites."));
    for (const slot of this.#slots) {
      await slot.opening?.catch(() => undefined);
      const site = await slot.site?.catch(() => undefined);
      await site?.[Symbol.asyncDispose]();
    }
    this.#catalogs[Symbol.dispose]();
  }

  /** Why a site did not answer a moment ago. An only site has no other that would do. */
  #keptFailure({ failed }: Slot): AppError | undefined {
    const nowMs = this.#options.doors.clock.monotonic();
    const isKept = failed !== undefined && nowMs - failed.atMs < FAILURE_KEPT_MS;
    return isKept && this.#slots.length > 1 ? failed.error : undefined;
  }

  /** Why a site cannot be used now; undefined if it answered. */
  async #lookAt(slot: Slot, ms: number, signal?: AbortSignal): Promise<AppError | undefined> {
    const { clock } = this.#options.doors;
    const name = slot.configured.name;
    const startMs = clock.monotonic();
    try {
      if (this.#slots.length === 1) {
        await this.repository(name, signal);
      } else {
        await within({ clock, ms, what: `Site ${name}`, signal }, (inner) =>
          this.repository(name, inner),
        );
      }
      slot.failed = undefined;
      const leftMs = ms - (clock.monotonic() - startMs);
      if (slot.open !== undefined) await this.locks.refresh(slot.open, leftMs, signal);
      return undefined;
    } catch (thrown) {
      signal?.throwIfAborted();
      const error = toAppError(thrown);
      // Who was given only a moment has the former error still, and is given its time when that is old.
      const isShort = ms < LOOK_TIMEOUT_MS && error.kind === "timeout";
      if (isShort && slot.failed !== undefined) return slot.failed.error;
      slot.failed = { error, atMs: clock.monotonic() };
      return error;
    }
  }

  /** Opens once, whoever waits; an opening that failed is tried anew. */
  async #open(slot: Slot, signal?: AbortSignal): Promise<OpenSite> {
    if (slot.open !== undefined) return slot.open;
    slot.opening ??= this.#openSlot(slot).finally(() => {
      slot.opening = undefined;
    });
    return await raceAbort(slot.opening, signal);
  }

  async #openSlot(slot: Slot): Promise<OpenSite> {
    const { doors, node } = this.#options;
    const { name } = slot.configured;
    const { signal } = this.#stop;
    slot.site ??= slot.configured.open();
    const site = await slot.site.catch((thrown: unknown) => {
      slot.site = undefined;
      throw thrown;
    });
    slot.location = site.location;
    const found = await readHeader(site, { signal });
    const catalog = this.#catalogs.open(name, site.location, found);
    const repository = await Repository.open({
      site,
      catalog,
      doors,
      node,
      encryption: this.#options.encryption,
      signal,
    });
    const openSource = (how?: SourceHow): ChunkSource => this.sources.open(slot.open!, how);
    const read: ReadManifest = (backup, call, identities) =>
      this.sources.readManifest(slot.open!, backup, call, identities);
    const { site: id } = found.header;
    slot.open = { name, id, repository, catalog, openSource, readManifest: read };
    return slot.open;
  }

  #viewOf(errors: readonly (AppError | undefined)[]): SitesNow {
    const opened = this.opened.map(({ id, repository }) => ({ id, roles: repository.state.roles }));
    const roles = rolesNow(this.#catalogs.roles, opened);
    const seen = this.#slots.map((slot, index): SeenSite => {
      const { name, firstRole, retention } = slot.configured;
      const { open, location } = slot;
      const error = errors[index];
      return { name, firstRole, retention, id: this.#idOf(slot), location, open, error };
    });
    return { roles, sites: viewSites(roles, seen, (id, called) => this.#lacking(id, called)) };
  }

  /** Sites that answered at their last look. */
  #answering(): OpenSite[] {
    return this.#slots.flatMap(({ open, failed }) =>
      open === undefined || failed !== undefined ? [] : [open],
    );
  }

  #found(): FoundSite[] {
    return this.#answering().map(({ id, name, repository }) => {
      const { firstRole, retention } = this.#mustGetSlot(name).configured;
      return {
        id,
        name,
        location: repository.site.location,
        firstRole,
        ...(retention === undefined ? {} : { retention }),
        state: repository.state,
      };
    });
  }

  #idOf(slot: Slot): string | undefined {
    return slot.open?.id ?? this.#catalogs.idOf(slot.configured.name);
  }

  /** Throws AppError `not-found` for a name that the configuration does not have. */
  mustName(name: string): void {
    this.#mustGetSlot(name);
  }

  #mustGetSlot(name: string): Slot {
    const slot = this.#slots.find(({ configured }) => configured.name === name);
    if (slot !== undefined) return slot;
    throw new AppError("not-found", `The configuration names no site ${name}.`, {
      guidance: `Its sites are ${this.names.join(", ")}.`,
    });
  }

  #newOperation(): string {
    return Buffer.from(this.#options.doors.random.bytes(16)).toString("hex");
  }

  #lacking(id: string, called: string): AppError {
    const has = this.#slots.map(({ configured: { name }, location = "?" }) => {
      return `${name} (${location})`;
    });
    return lackingSite(id, { called, node: this.#options.node, has });
  }
}
