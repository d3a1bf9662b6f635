/**
 * A repository at one site, as one node sees it: its state, its index of chunks, and the one way to
 * change it. What was seen once is never taken back: a log that is shorter than before, or has
 * another entry where this node has read one, is refused. Commits are decided on the state at N and
 * created at N+1, or decided again.
 *
 * The owner of site and catalog closes them; nothing else is held here.
 */
import assert from "node:assert/strict";
import packageJson from "../../../package.json" with { type: "json" };
import type { Doors, Random } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { Semaphore } from "../../base/semaphore.ts";
import type { Site, SiteCall } from "../../sites/site.ts";
import type { Catalog } from "../catalog/catalog.ts";
import { ChunkIndex } from "../catalog/catalog-index.ts";
import { CatalogLog } from "../catalog/catalog-log.ts";
import { decodeCheckpoint, encodeCheckpoint } from "./checkpoint.ts";
import { newerCheckpoint, prepareEntry, seeSlot, sendEntry } from "./commit.ts";
import type { PreparedEntry, SlotOutcome } from "./commit.ts";
import { decodeEntry, entryHash } from "./entry.ts";
import type { EntryDraft } from "./entry.ts";
import { initRepository, readHeader } from "./header-object.ts";
import type { FoundHeader, InitOptions } from "./header-object.ts";
import type { RepositoryHeader } from "../format/header.ts";
import { closedLog, emptyLog, otherHistory, otherSite, setBack } from "./history-errors.ts";
import type { Place } from "./history-errors.ts";
import { checkpointKey, logCopyKey, logKey } from "../format/ids.ts";
import type { Sealer } from "../format/seal.ts";
import { FrameOpener } from "../keys/frame-opener.ts";
import { mustBeSealed, sealerFor } from "../keys/repository-encryption.ts";
import type { RepositoryEncryption } from "../keys/repository-encryption.ts";
import { WriteSession } from "../keys/write-session.ts";
import { IndexFollower } from "./index-follower.ts";
import { putObject } from "./put-object.ts";
import { Replay } from "./replay.ts";
import { namedSegments, newBirths } from "./state-rules.ts";
import { emptyState } from "./state.ts";
import type { CheckpointRef, RepositoryState } from "./state.ts";
import { findFirstTip, findTip, putLogCopy, readEntries } from "./tip.ts";
import type { Tip } from "./tip.ts";

const CHECKPOINT_ENTRY_COUNT = 64;
const COMMIT_COUNT_MAX = 60;
const LOST_WAIT_MS = 10;
const LOST_WAIT_MS_MAX = 2_000;
const FOLLOW_COUNT_MAX = 4;

/** How a repository is opened. */
export type RepositoryOptions = SiteCall & {
  readonly site: Site;
  readonly catalog: Catalog;
  readonly doors: Pick<Doors, "clock" | "random">;
  /** The node that commits. */
  readonly node: string;
  /** What the configuration remembers; anything else is refused. */
  readonly expected?: { readonly repository?: string; readonly site?: string };
  /** What an encrypted repository is opened with; a plain one refuses it. */
  readonly encryption?: RepositoryEncryption | undefined;
  /** Nothing is written to the site. */
  readonly readOnly?: boolean;
  /**
   * How the tip is looked for: how many slots at once, and whether the last known entry is looked at
   * again each time (which notices a log that was set back). The leanest is three GETs.
   */
  readonly tip?: { readonly probeCount?: number; readonly checkKnown?: boolean };
};

/** How a commit ended. */
export type CommitResult =
  | { readonly outcome: "won"; readonly sequence: number; readonly state: RepositoryState }
  | { readonly outcome: "nothing" };

/** What became of a commit whose outcome was unknown. */
export type Settled = { readonly sequence: number; readonly outcome: SlotOutcome };

/** Decides on a state what to commit; undefined for nothing. Asked again at each new state. */
export type Decide = (
  state: RepositoryState,
) => Promise<EntryDraft | undefined> | EntryDraft | undefined;

/** A repository at one site. */
export class Repository {
  readonly header: RepositoryHeader;
  readonly site: Site;
  readonly index: ChunkIndex;
  /** For salts and ids of what is stored here. */
  readonly random: Random;
  /** The node's side of encryption; does nothing in a plain repository. */
  readonly sealer: Sealer;
  /** Why the catalog had to be built again at this opening, if it had. */
  readonly rebuilt: string | undefined;
  readonly #options: RepositoryOptions;
  readonly #log: CatalogLog;
  readonly #follower: IndexFollower;
  readonly #turn = new Semaphore(1);
  #state: RepositoryState;
  #checkpoint: CheckpointRef | undefined;
  #settled: Settled | undefined;

  private constructor(options: RepositoryOptions, header: FoundHeader) {
    const { site, catalog } = options;
    this.#options = options;
    this.header = header.header;
    this.site = site;
    this.random = options.doors.random;
    this.index = new ChunkIndex(catalog);
    this.sealer = sealerFor(header.header, options.encryption, site);
    const { sealer } = this;
    this.#log = new CatalogLog(catalog, sealer);
    this.#follower = new IndexFollower({ site, index: this.index, log: this.#log, sealer });
    const loaded = this.#load(header);
    this.#state = loaded.state;
    this.index.setRepairs(loaded.state.repairs);
    this.rebuilt = loaded.rebuilt ?? catalog.rebuilt;
  }

  /** Makes a repository at a site that has none: header and entry 1. */
  static async init(site: Site, options: InitOptions): Promise<RepositoryHeader> {
    return initRepository(site, options);
  }

  /**
   * Opens the repository at a site and reads its log up to the end. A commit of unknown outcome is
   * settled first.
   *
   * @example
   * const repository = await Repository.open({ site, catalog, doors, node: "a" });
   * for (const backup of listedBackups(repository.state)) console.log(backup.name);
   */
  static async open(options: RepositoryOptions): Promise<Repository> {
    const ids = options.expected === undefined ? {} : { expected: options.expected };
    const header = await readHeader(options.site, { ...callOf(options), ...ids });
    const repository = new Repository(options, header);
    await repository.catchUp(options.signal);
    return repository;
  }

  /** The state as of the last look at the site. */
  get state(): RepositoryState {
    return this.#state;
  }

  /** The local cache; temporary tables of an operation lie beside it. */
  get catalog(): Catalog {
    return this.#options.catalog;
  }

  /** The last commit of unknown outcome that was settled since this repository was opened. */
  get settled(): Settled | undefined {
    return this.#settled;
  }

  /** Current index segments that cannot be read, by id. */
  get indexProblems(): ReadonlyMap<string, AppError> {
    return this.#follower.problems;
  }

  /** Reads the log on to its end; the index follows. */
  async catchUp(signal?: AbortSignal): Promise<RepositoryState> {
    return this.#turn.run(() => this.#refresh({ signal }), signal);
  }

  /**
   * Commits what `decide` says on the newest state. It may be asked many times, and may read this
   * repository meanwhile. An outcome that cannot be seen is AppError with
   * `context.outcome = "unknown"`.
   */
  async commit(
    decide: Decide,
    options: SiteCall & { readonly operation: string },
  ): Promise<CommitResult> {
    const { signal } = options;
    for (let count = 1; count <= COMMIT_COUNT_MAX; count += 1) {
      const state = await this.catchUp(signal);
      this.#refuseToWrite(state);
      const draft = await decide(state);
      if (draft === undefined) return { outcome: "nothing" };
      const won = await this.#turn.run(() => this.#attempt(state, draft, options), signal);
      if (won !== undefined) return { outcome: "won", sequence: won.sequence, state: won };
      await this.#waitAfterLoss(count, signal);
    }
    throw new AppError("conflict", `Others commit to ${this.site.location} all the time.`, {
      guidance: "Nothing was committed. Try again later.",
      retryable: true,
      context: { site: this.site.name, tries: COMMIT_COUNT_MAX },
    });
  }

  /**
   * Sends an object that is named by its content. A name that is taken is as good if the bytes are
   * the same.
   */
  async putObject(
    key: string,
    bytes: Uint8Array,
    options: SiteCall & { readonly sha256?: string } = {},
  ): Promise<void> {
    this.#refuseToWrite(this.#state);
    mustBeSealed(this.sealer, key, bytes);
    await putObject(this.site, key, bytes, options);
  }

  /** What opens frames and manifests, with these identities of age beside the node keys. */
  openerFor(identities: readonly string[] = []): FrameOpener {
    const { sealer, site } = this;
    return new FrameOpener({ sealer, site, keys: () => this.#state.keys, identities });
  }

  /** Draws the session key of an operation; undefined in a plain repository. */
  beginSession(): WriteSession | undefined {
    const { encryption, doors } = this.#options;
    return encryption === undefined ? undefined : new WriteSession(this, encryption, doors.random);
  }

  /** The bytes of an entry that this node has read; undefined beyond its state. */
  async entryBytes(sequence: number, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    if (sequence < 1 || sequence > this.#state.sequence) return undefined;
    return this.#log.getEntry(sequence) ?? this.site.get(logKey(sequence), callOf({ signal }));
  }

  /** Puts an entry that the site has lost back from the catalog, as a log copy; false if it is not there. */
  async mendLog(sequence: number, signal?: AbortSignal): Promise<boolean> {
    this.#refuseToWrite(this.#state);
    const bytes = this.#log.getEntry(sequence);
    if (bytes === undefined) return false;
    await putLogCopy(this.site, bytes, callOf({ signal }));
    return true;
  }

  /** Builds the index of chunks again, after a row of it was found damaged. */
  async rebuildIndex(signal?: AbortSignal): Promise<void> {
    await this.#turn.run(async () => {
      this.index.clear();
      this.#log.setIndexed(0);
      await this.#refresh({ signal });
    }, signal);
  }

  #load(header: FoundHeader): {
    readonly state: RepositoryState;
    readonly rebuilt?: string;
  } {
    try {
      this.#refuseOtherSite(header);
      return { state: this.#log.load(header.header, header.hash) };
    } catch (thrown) {
      if (!(thrown instanceof AppError) || thrown.context["catalog"] !== true) throw thrown;
      this.#log.clear();
      this.index.clear();
      return { state: emptyState(header.hash, header.header), rebuilt: thrown.message };
    }
  }

  #refuseOtherSite({ header, hash }: FoundHeader): void {
    const binding = this.#log.getBinding();
    if (binding === undefined) return;
    const isSame =
      binding.repository === header.repository &&
      binding.site === header.site &&
      binding.header === hash;
    if (isSame) return;
    throw otherSite(this.#place, header, binding);
  }

  #refuseToWrite(state: RepositoryState): void {
    if (this.#options.readOnly === true) {
      throw new AppError("refused", `${this.site.location} was opened to be read only.`);
    }
    if (state.closed !== undefined) throw closedLog(this.site, state, state.closed);
    if (state.blocked === undefined) return;
    throw new AppError("refused", `This node may not write: ${state.blocked}`, {
      guidance: "Upgrade Astacus on this node. Listing and restoring work as before.",
      context: { site: this.site.name },
    });
  }

  /** Reads on until neither the log nor a pending commit nor the index has anything to do. */
  async #refresh(options: { readonly signal: AbortSignal | undefined }): Promise<RepositoryState> {
    const call = callOf(options);
    await this.#readLog(call);
    if (await this.#settle(call)) await this.#readLog(call);
    for (let count = 1; count <= FOLLOW_COUNT_MAX; count += 1) {
      if (await this.#follower.follow(this.#state, call)) break;
      // A named object that is missing: either the log has moved on, or it is damaged.
      const { sequence } = this.#state;
      await this.#readLog(call);
      if (this.#state.sequence === sequence) break;
    }
    return this.#state;
  }

  async #readLog(call: SiteCall): Promise<void> {
    if (this.#state.sequence === 0) return this.#readFirst(call);
    const known = this.#state.sequence;
    const { probeCount, checkKnown } = this.#options.tip ?? {};
    const [tip, isThere] = await Promise.all([
      findTip(this.site, known, { ...call, ...(probeCount === undefined ? {} : { probeCount }) }),
      checkKnown === false ? true : this.#isKnownThere(call),
    ]);
    if (!isThere && !(tip.sequence > known && (await this.#hasLogCopy(call)))) {
      throw setBack(this.#place, known, tip.sequence);
    }
    if (tip.sequence > known) await this.#replay(this.#state, tip, call);
  }

  /** From nothing: the newest checkpoint that the log names, and what follows. */
  async #readFirst(call: SiteCall): Promise<void> {
    const tip = await findFirstTip(this.site, call);
    if (tip.sequence === 0) throw emptyLog(this.site);
    const start = this.#state;
    const checkpoint = await this.#readCheckpoint(tip, call);
    this.#log.clear();
    if (checkpoint !== undefined) {
      try {
        this.#log.save(checkpoint, [], { whole: true });
        await this.#replay(checkpoint, tip, call);
        return;
      } catch (thrown) {
        if (!(thrown instanceof AppError) || thrown.kind !== "damaged") throw thrown;
        this.#log.clear();
        this.#state = start;
      }
    }
    await this.#replay(start, tip, call);
  }

  /** A checkpoint that is missing or damaged costs time and nothing else. */
  async #readCheckpoint(tip: Tip, call: SiteCall): Promise<RepositoryState | undefined> {
    const bytes = tip.found.get(tip.sequence);
    assert(bytes !== undefined);
    const ref = decodeEntry(bytes, tip.sequence, this.sealer).checkpoint;
    if (ref === null) return undefined;
    const found = await this.site.get(checkpointKey(ref.sequence, ref.hash), call);
    if (found === undefined) return undefined;
    try {
      const state = decodeCheckpoint(found, ref, this.sealer);
      return state.headerHash === this.#state.headerHash ? state : undefined;
    } catch (thrown) {
      if (thrown instanceof AppError && thrown.kind === "damaged") return undefined;
      throw thrown;
    }
  }

  /** Shows each batch as it is remembered: a log is as good a history up to any entry of it. */
  async #replay(start: RepositoryState, tip: Tip, call: SiteCall): Promise<void> {
    let state = start;
    const range = { from: start.sequence + 1, to: tip.sequence };
    for await (const entries of readEntries(this.site, range, { ...call, found: tip.found })) {
      const replay = new Replay(state);
      for (const { sequence, bytes } of entries) {
        const entry = decodeEntry(bytes, sequence, this.sealer);
        if (entry.kind === "merge") this.#follower.forgetDropped(replay.state, entry.body.dropped);
        replay.apply(entry, entryHash(bytes));
      }
      ({ state } = replay);
      this.#log.save(state, entries);
      this.#show(state);
    }
  }

  /** Deleted packs leave the index before anybody can see the state that deletes them. */
  #show(state: RepositoryState): void {
    this.#follower.showState(state);
    this.#state = state;
  }

  /** True if the last entry that this node has read is still there; another one is refused. */
  async #isKnownThere(call: SiteCall): Promise<boolean> {
    const { sequence, entryHash: hash } = this.#state;
    let found: string | undefined;
    for (const _ of ["first", "again"]) {
      const bytes = await this.site.get(logKey(sequence), call);
      found = bytes === undefined ? undefined : entryHash(bytes);
      if (found === hash) return true;
    }
    if (found === undefined) return false;
    throw otherHistory(this.#place, { sequence, known: hash, found });
  }

  async #hasLogCopy(call: SiteCall): Promise<boolean> {
    const { entryHash: hash } = this.#state;
    const bytes = await this.site.get(logCopyKey(hash), call);
    return bytes !== undefined && entryHash(bytes) === hash;
  }

  get #place(): Place {
    return { site: this.site, catalog: this.#options.catalog };
  }

  /** Settles the journaled commit, if there is one; true if the log may have grown by it. */
  async #settle(call: SiteCall): Promise<boolean> {
    const pending = this.#log.getPending();
    if (pending === undefined || this.#options.readOnly === true) return false;
    const { sequence } = pending;
    if (sequence > this.#state.sequence + 1) {
      throw setBack(this.#place, sequence - 1, this.#state.sequence);
    }
    const isOpen = sequence === this.#state.sequence + 1;
    const { clock, random } = this.#options.doors;
    // Sent as the same bytes until the slot is seen: the first try may still be on its way.
    const outcome = isOpen
      ? await sendEntry(this.site, pending, { ...call, clock, random })
      : ((await seeSlot(this.site, pending, call)) ?? "lost");
    this.#log.setPending(undefined);
    this.#settled = { sequence, outcome };
    return isOpen;
  }

  /** One try to commit on a state; undefined if somebody was faster. */
  async #attempt(
    state: RepositoryState,
    draft: EntryDraft,
    options: SiteCall & { readonly operation: string },
  ): Promise<RepositoryState | undefined> {
    if (this.#state !== state) return undefined;
    const call = callOf(options);
    const { doors, node } = this.#options;
    await this.#writeCheckpoint(state, call);
    const entry = prepareEntry(state, draft, {
      ...doors,
      operation: options.operation,
      writer: { node, version: packageJson.version },
      checkpoint: this.#checkpoint,
      births: await this.#birthsOf(state, draft, call),
      sealer: this.sealer,
    });
    this.#log.setPending(entry);
    if ((await this.#send(entry, call)) === "lost") return undefined;
    this.#log.save(entry.state, [entry]);
    this.#log.setPending(undefined);
    this.#show(entry.state);
    await this.#followQuietly(call);
    return entry.state;
  }

  async #send(entry: PreparedEntry, call: SiteCall): Promise<SlotOutcome> {
    const { clock, random } = this.#options.doors;
    try {
      const outcome = await sendEntry(this.site, entry, { ...call, clock, random });
      if (outcome === "lost") this.#log.setPending(undefined);
      return outcome;
    } catch (thrown) {
      const isUnknown = thrown instanceof AppError && thrown.context["outcome"] === "unknown";
      if (!isUnknown) this.#log.setPending(undefined);
      throw thrown;
    }
  }

  /** The commit is won whatever becomes of this; the next look at the site does what was left. */
  async #followQuietly(call: SiteCall): Promise<void> {
    try {
      await this.#follower.follow(this.#state, call);
    } catch (thrown) {
      if (!(thrown instanceof AppError) && call.signal?.aborted !== true) throw thrown;
    }
  }

  async #birthsOf(
    state: RepositoryState,
    draft: EntryDraft,
    call: SiteCall,
  ): Promise<readonly [number, number] | null> {
    if (draft.births !== undefined) return draft.births;
    const births = newBirths(state, draft);
    if (draft.kind !== "merge") {
      // The packs in a segment are named with it; a merge brings none that was not named before.
      const segments = namedSegments(draft).filter(({ id }) => !state.segments.has(id));
      for (const birth of await this.#follower.birthsOf(state, segments, call)) births.push(birth);
    }
    if (births.length === 0) return null;
    return births.reduce<[number, number]>(
      ([low, high], birth) => [Math.min(low, birth), Math.max(high, birth)],
      [Infinity, 0],
    );
  }

  /** Due after so many entries; the entry that is committed next names it. */
  async #writeCheckpoint(state: RepositoryState, call: SiteCall): Promise<void> {
    const newest = newerCheckpoint(state.checkpoint, this.#checkpoint)?.sequence ?? 0;
    if (state.sequence - newest < CHECKPOINT_ENTRY_COUNT) return;
    const { sealer } = this;
    const { key, bytes, hash } = encodeCheckpoint(state, sealer);
    const ref = { sequence: state.sequence, hash };
    // A wrong one would mislead every new node, so it is read before it is sent.
    assert.equal(encodeCheckpoint(decodeCheckpoint(bytes, ref, sealer), sealer).hash, hash);
    await this.putObject(key, bytes, { ...call, sha256: hash });
    this.#checkpoint = ref;
  }

  async #waitAfterLoss(count: number, signal: AbortSignal | undefined): Promise<void> {
    const { clock, random } = this.#options.doors;
    const longestMs = Math.min(LOST_WAIT_MS_MAX, LOST_WAIT_MS * 2 ** count);
    await clock.sleep(random.fraction() * longestMs, signal);
  }
}

function callOf(options: { readonly signal?: AbortSignal | undefined }): SiteCall {
  return options.signal === undefined ? {} : { signal: options.signal };
}
