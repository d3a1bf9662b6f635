/**
 * A random walk over two sites of one repository: writers and cleaners at both, people who forget
 * here or everywhere, bring back and pin, copiers in both directions that are stopped anywhere, and
 * repairers who take good objects for bad ones; at last one site may be closed. After each change of
 * a site an observer looks whether every backup that is listed or pinned there has all its chunks
 * there.
 */
import { AppError } from "../../src/base/error.ts";
import { fromHex, sha256 } from "../../src/base/hex.ts";
import { dropPin, forgetBackups, pinBackup, undoForget } from "../../src/cas/clean/backup-marks.ts";
import { runCleanup } from "../../src/cas/clean/cleanup.ts";
import { closeLog } from "../../src/cas/copy/close-log.ts";
import { copyBackups } from "../../src/cas/copy/copy-backups.ts";
import { backupsToHold, copyStateOf } from "../../src/cas/copy/copy-side.ts";
import { proveCopy } from "../../src/cas/copy/prove-copy.ts";
import { repairPacks } from "../../src/cas/copy/repair-objects.ts";
import { drawId, logKey, manifestKey } from "../../src/cas/format/ids.ts";
import { packKey } from "../../src/cas/format/pack.ts";
import { listTreeNodes } from "../../src/cas/format/tree.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import { isPinned, listedBackups } from "../../src/cas/log/state.ts";
import type { BackupRecord } from "../../src/cas/log/state.ts";
import { commitBackup } from "../../src/cas/write/backup-commit.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { Site } from "../../src/sites/site.ts";
import type { SmallBackup, SmallNode } from "../cas/small-backups.ts";
import { openNode, openSource, readSmall, smallChunk, storeSmall } from "../cas/small-backups.ts";
import { interceptSite } from "../cas/repository-world.ts";
import { seededRandom, StillClock } from "../sites/still-clock.ts";
import type { Distance } from "./distant-site.ts";
import { DistantSite } from "./distant-site.ts";
import { VirtualClock } from "./virtual-clock.ts";

/** One walk. */
export type SitesWalkOptions = {
  readonly seed: number;
  /** Virtual time; everybody stops after it, and late requests arrive. */
  readonly durationMs: number;
};

/** What happened in a walk. */
export type SitesWalkResult = {
  /** What must not be; undefined if nothing of the kind was seen. */
  readonly violation: string | undefined;
  readonly counts: Readonly<Record<string, number>>;
};

/** One of the two sites, with whoever looks at it. */
type Place = {
  readonly site: MemorySite;
  readonly observer: SmallNode;
  /** How many removals the observer has seen. */
  seen: number;
  /** Of backups by their entries: ids of all chunks that they need. */
  readonly chunks: Map<number, readonly string[]>;
};

const CHUNK_COUNT = 24;
const DISTANCE: Distance = { latencyMs: 12, faultRate: 0.003, lateMs: 3000 };
const STEP_COUNT_MAX = 400_000;
const CHUNKER = { rule: "astacus-cdc-1", averageSizeBytes: 262_144 } as const;

/** Walks once. */
export async function walkSites(options: SitesWalkOptions): Promise<SitesWalkResult> {
  return await new SitesWalker(options).run();
}

class SitesWalker {
  readonly #options: SitesWalkOptions;
  readonly #clock = new VirtualClock();
  readonly #random;
  readonly #places: Place[] = [];
  readonly #backups = new Map<string, SmallBackup>();
  readonly #ended = new Set<string>();
  readonly #counts: Record<string, number> = {};
  readonly #endMs: number;
  #violation: string | undefined;

  constructor(options: SitesWalkOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
    this.#endMs = this.#clock.now() + options.durationMs;
  }

  async run(): Promise<SitesWalkResult> {
    const quiet = { clock: new StillClock(), random: seededRandom(this.#options.seed + 1) };
    let repository: string | undefined;
    for (const name of ["one", "other"]) {
      const site = new MemorySite(name);
      const same = repository === undefined ? {} : { repository };
      const header = await Repository.init(site, { doors: quiet, chunker: CHUNKER, ...same });
      ({ repository } = header);
      const observer = await openNode(site, quiet, { node: "observer" });
      this.#places.push({ site, observer, seen: 0, chunks: new Map() });
    }
    try {
      await this.#walk();
    } finally {
      for (const { observer } of this.#places) observer[Symbol.dispose]();
    }
    return { violation: this.#violation, counts: this.#counts };
  }

  async #walk(): Promise<void> {
    const here = (): number => (this.#chance() < 0.7 ? 0 : 1);
    const both = (): number => (this.#chance() < 0.5 ? 0 : 1);
    const actors = [
      this.#act("w0", async () => this.#write(await this.#open("w0", here()))),
      this.#act("w1", async () => this.#write(await this.#open("w1", here()))),
      this.#act("c0", async () => this.#clean(await this.#open("c0", 0))),
      this.#act("c1", async () => this.#clean(await this.#open("c1", 1))),
      this.#act("m", async () => this.#mark(await this.#open("m", both()))),
      this.#act("p0", () => this.#copy("p0", both())),
      this.#act("p1", () => this.#copy("p1", both())),
      this.#act("r", () => this.#repair("r", both())),
    ];
    if (this.#chance() < 0.4) actors.push(this.#closeMidway());
    for (let count = 0; count < STEP_COUNT_MAX && this.#violation === undefined; count++) {
      if (!(await this.#clock.step())) break;
      for (const place of this.#places) await this.#observe(place);
    }
    if (this.#violation !== undefined) return;
    await Promise.all(actors);
    if (this.#chance() < 0.5) await this.#closeAndProve();
    for (const place of this.#places) await this.#readAll(place);
  }

  /** One actor: does its work again and again. */
  async #act(name: string, work: () => Promise<void>): Promise<void> {
    while (this.#clock.now() < this.#endMs && this.#violation === undefined) {
      await this.#clock.sleep(this.#chance() * 150);
      try {
        await work();
      } catch (thrown) {
        this.#judge(name, thrown);
      }
      if (this.#chance() < 0.1) this.#forgetNodes(name);
    }
    this.#forgetNodes(name);
  }

  readonly #nodes = new Map<string, SmallNode>();

  /** A node of an actor at a site; its catalog is lost now and then. */
  async #open(name: string, index: number): Promise<SmallNode> {
    const key = `${name}@${index}`;
    const known = this.#nodes.get(key);
    if (known !== undefined) return known;
    const random = seededRandom(Math.floor(this.#chance() * 2 ** 31));
    const onLate = (): void => this.#count("late arrivals");
    const parts = { clock: this.#clock, random, distance: DISTANCE, onLate };
    const site = new DistantSite(this.#places[index]!.site, parts);
    const node = await openNode(site, { clock: this.#clock, random }, { node: name });
    this.#nodes.set(key, node);
    return node;
  }

  #forgetNodes(name: string): void {
    for (const [key, node] of this.#nodes) {
      if (!key.startsWith(`${name}@`)) continue;
      node[Symbol.dispose]();
      this.#nodes.delete(key);
      this.#count("reopened");
    }
  }

  async #write({ repository, source }: SmallNode): Promise<void> {
    const operation = this.#drawId();
    await repository.catchUp();
    const ended = new Date(this.#clock.now()).toISOString();
    const how = { random: this.#fork(), ended, operation, isKept: this.#chance() < 0.3 };
    try {
      const stored = await storeSmall(repository, this.#drawNumbers(), how);
      this.#backups.set(stored.draft.backup, stored);
      await this.#clock.sleep(this.#chance() ** 3 * 2000);
      if (this.#chance() < 0.05) return this.#count("abandoned");
      await commitBackup(repository, source, stored.draft, { operation });
      this.#count("backups");
    } finally {
      this.#ended.add(operation);
    }
  }

  async #clean({ repository, source }: SmallNode): Promise<void> {
    const report = await runCleanup({
      repository,
      source,
      operation: this.#drawId(),
      policy: { minimum: 1, keepLast: 1 + Math.floor(this.#chance() * 4) },
      undoWindowMs: this.#pick([0, 0, 100, 800]),
      keepSilentMs: this.#pick([200, 2000, 100_000]),
      endedOperations: this.#chance() < 0.5 ? this.#ended : new Set(),
      now: this.#clock.now(),
      sweep: this.#chance() < 0.4,
    });
    this.#count("retired", report.retired.packs);
    this.#count("deleted", report.deleted.packs);
    this.#count("merges", report.merges.length);
    this.#count("repacks", report.repacks.length);
    this.#count("garbage", report.garbage.objects);
    this.#count("alarms", report.alarms.length);
  }

  async #mark({ repository }: SmallNode): Promise<void> {
    const state = await repository.catchUp();
    const operation = this.#drawId();
    const open = (): SmallNode["source"] => openSource(repository);
    const backup = this.#pick([...state.backups.values()]);
    const pin = this.#pick([...state.pins.keys()]);
    const action = this.#pick(["forget", "forget", "undo", "undo", "pin", "unpin"] as const);
    if (backup === undefined) return;
    const id = backup.backup;
    if (action === "forget" && listedBackups(state).length > 1) {
      const scope = this.#pick(["site", "all", "all"] as const);
      await forgetBackups(repository, { backups: [id], reason: "by name", scope, operation });
    } else if (action === "undo") {
      const won = await undoForget(repository, open, { backup: id, operation });
      if (won !== undefined) this.#count("undone");
    } else if (action === "pin") {
      await pinBackup(repository, open, { backup: id, pin: operation, reason: "pin", operation });
      this.#count("pinned");
    } else if (pin !== undefined) {
      await dropPin(repository, { pin, operation });
    }
  }

  /** Copies all or some backups; sometimes it is stopped on the way. */
  async #copy(name: string, index: number): Promise<void> {
    const from = await this.#open(name, index);
    const to = await this.#open(name, 1 - index);
    const operation = this.#drawId();
    const stop = new AbortController();
    const isStopped = this.#chance() < 0.3;
    const stopping = isStopped ? this.#stopLater(stop) : undefined;
    const listed = listedBackups(await from.repository.catchUp()).map(({ backup }) => backup);
    const isAsked = this.#chance() < 0.4 && listed.length > 0;
    const birth = to.repository.state.sequence;
    try {
      const report = await copyBackups(from, to, {
        operation,
        concurrency: 2,
        readBack: this.#chance() < 0.5,
        keepEveryBytes: this.#pick([1, 1500, 1e9]),
        ...(isAsked ? { backups: [this.#pick(listed)], override: this.#chance() < 0.5 } : {}),
        ...(this.#chance() < 0.3 ? { sentUnder: birth } : {}),
        signal: stop.signal,
      });
      for (const { id, state } of report.backups) {
        this.#count(state);
        if (state !== "copied" && state !== "there") continue;
        if (copyStateOf(to.repository.state, id) === "copy") this.#fail(`${id} is not ${state}`);
      }
      this.#count("forgotten for all", report.forgotten.length);
      this.#count("packs copied", report.packs);
    } finally {
      this.#ended.add(operation);
      await stopping;
    }
  }

  async #stopLater(stop: AbortController): Promise<void> {
    await this.#clock.sleep(this.#chance() * 600);
    stop.abort(new AppError("cancelled", "The copy was stopped."));
  }

  /** Takes a good pack for a bad one, since it comes badly over this actor's line. */
  async #repair(name: string, index: number): Promise<void> {
    const good = await this.#open(name, 1 - index);
    const seed = Math.floor(this.#chance() * 2 ** 31);
    let bad = "";
    const parts = { clock: this.#clock, random: seededRandom(seed), distance: DISTANCE };
    const line = new DistantSite(this.#places[index]!.site, { ...parts, onLate: () => undefined });
    const site: Site = interceptSite(line, {
      get: async (key, options) => (key === bad ? new Uint8Array(1) : await line.get(key, options)),
    });
    using to = await openNode(site, { clock: this.#clock, random: seededRandom(seed + 1) });
    const pack = this.#pick([...to.repository.index.packs()]);
    if (pack === undefined) return;
    bad = packKey(pack.id, pack.birth);
    const report = await repairPacks(to, [good], [pack.id], { operation: this.#drawId() });
    this.#count("repaired", report.repaired.length);
  }

  /** Ends one log while everybody is at work; what is there stays there. */
  async #closeMidway(): Promise<void> {
    await this.#clock.sleep(this.#chance() * this.#options.durationMs);
    while (this.#violation === undefined) {
      try {
        const { repository } = await this.#open("x", 1);
        const successor = this.#places[0]!.observer.repository.header.site;
        const operation = this.#drawId();
        await closeLog(repository, { successor, reason: "midway", operation });
        this.#count("closed midway");
        return;
      } catch (thrown) {
        this.#judge("x", thrown);
        await this.#clock.sleep(50);
      } finally {
        this.#forgetNodes("x");
      }
    }
  }

  /** Ends one log, copies what came in between, and proves that nothing is lacking. */
  async #closeAndProve(): Promise<void> {
    const quiet = { clock: new StillClock(), random: seededRandom(this.#options.seed + 5) };
    using from = await openNode(this.#places[1]!.site, quiet, { node: "closer" });
    using to = await openNode(this.#places[0]!.site, quiet, { node: "closer" });
    const operation = this.#drawId();
    const successor = to.repository.header.site;
    await closeLog(from.repository, { successor, reason: "the end", operation });
    const wanted = backupsToHold(from.repository.state).map(({ backup }) => backup);
    const how = { operation, concurrency: 2, readBack: true, keepEveryBytes: 1000 };
    await copyBackups(from, to, { ...how, backups: wanted, override: true });
    const { unproved } = await proveCopy(from, to, { deep: true });
    const missing = unproved.filter(({ id }) => wanted.includes(id));
    if (missing.length > 0) this.#fail(`after closed: ${JSON.stringify(missing)}`);
    this.#count("closed");
  }

  /** Looks at a site after each change of its log, and after each removal. */
  async #observe(place: Place): Promise<void> {
    const { site, observer } = place;
    const seen = site.requests.delete;
    const isLogGrown = site.objects.has(logKey(observer.repository.state.sequence + 1));
    if (seen === place.seen && !isLogGrown) return;
    place.seen = seen;
    if (isLogGrown) await observer.repository.catchUp();
    await this.#check(place);
  }

  async #check(place: Place): Promise<void> {
    const { site, observer } = place;
    const { state, index } = observer.repository;
    for (const record of state.backups.values()) {
      if (record.forgotten !== undefined && !isPinned(state, record.backup)) continue;
      const what = `${site.name}, entry ${state.sequence}: backup ${record.backup} (${record.sequence})`;
      if (!site.objects.has(manifestKey(record.manifest.id, record.manifest.birth))) {
        return this.#fail(`${what} has lost its manifest`);
      }
      const chunks = await this.#chunksOf(place, record);
      if (chunks === undefined) return this.#fail(`${what} cannot be read`);
      for (const chunk of chunks) {
        const places = index.find(Buffer.from(chunk, "latin1"));
        const isThere = places.some(({ pack, birth }) => site.objects.has(packKey(pack, birth)));
        if (!isThere) return this.#fail(`${what} lacks a chunk, of ${places.length} places`);
      }
    }
  }

  async #chunksOf(place: Place, record: BackupRecord): Promise<readonly string[] | undefined> {
    const known = place.chunks.get(record.sequence);
    if (known !== undefined) return known;
    const made = this.#backups.get(record.backup);
    if (made === undefined) return undefined;
    const { source } = place.observer;
    const fetch = (id: Uint8Array, length: number): Promise<Uint8Array> => source.fetch(id, length);
    const ids = made.numbers.map((number) => sha256(smallChunk(number)));
    try {
      for (const root of [made.listing, ...record.lists.map((list) => list.root)]) {
        ids.push(fromHex(root.id));
        for await (const { id } of listTreeNodes(root, fetch)) ids.push(Uint8Array.from(id));
      }
    } catch {
      return undefined;
    }
    const chunks = ids.map((id) => Buffer.from(id).toString("latin1"));
    place.chunks.set(record.sequence, chunks);
    return chunks;
  }

  /** At the end, a node that has seen nothing reads every byte from that site alone. */
  async #readAll({ site }: Place): Promise<void> {
    const quiet = { clock: new StillClock(), random: seededRandom(this.#options.seed + 2) };
    using fresh = await openNode(site, quiet, { node: "fresh" });
    const { state } = fresh.repository;
    for (const record of state.backups.values()) {
      if (record.forgotten !== undefined && !isPinned(state, record.backup)) continue;
      const known = this.#backups.get(record.backup);
      try {
        const { manifest } = record;
        if (known !== undefined) {
          await readSmall(fresh, { ...known, draft: { ...known.draft, manifest } });
        }
      } catch (thrown) {
        this.#fail(`${site.name}: backup ${record.backup} cannot be restored: ${String(thrown)}`);
      }
    }
    this.#count("entries", state.sequence);
    this.#count("listed", listedBackups(state).length);
  }

  /** What an actor may meet on a bad line, or because others were faster. */
  #judge(name: string, thrown: unknown): void {
    if (!(thrown instanceof AppError)) {
      this.#fail(`${name}: ${thrown instanceof Error ? (thrown.stack ?? "") : String(thrown)}`);
    } else if ((thrown.kind === "damaged" && !name.startsWith("w")) || thrown.kind === "internal") {
      // Nothing is ever damaged here: whoever says so has lost sight of something. But the writers
      // of these walks do not look at the floor before they keep what they sent long ago.
      this.#fail(`${name}: ${thrown.stack ?? thrown.message}`);
    } else {
      this.#count(`failed: ${String(thrown.context["reason"] ?? thrown.kind)}`);
    }
  }

  #fail(what: string): void {
    this.#violation ??= what;
  }

  #count(what: string, by = 1): void {
    this.#counts[what] = (this.#counts[what] ?? 0) + by;
  }

  #drawNumbers(): number[] {
    const count = 2 + Math.floor(this.#chance() * 7);
    const numbers = new Set<number>();
    while (numbers.size < count) numbers.add(Math.floor(this.#chance() * CHUNK_COUNT));
    return [...numbers];
  }

  #fork(): ReturnType<typeof seededRandom> {
    return seededRandom(Math.floor(this.#chance() * 2 ** 31));
  }

  #drawId(): string {
    return drawId(this.#fork());
  }

  #chance(): number {
    return this.#random.fraction();
  }

  #pick<Item>(items: readonly Item[]): Item {
    return items[Math.floor(this.#chance() * items.length)]!;
  }
}
