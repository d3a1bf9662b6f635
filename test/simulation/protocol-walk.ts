/**
 * A random walk over the real code of the protocol: writers that sleep between plan and commit,
 * cleaners of any policy, people who forget, bring back and pin, all on one site over bad lines, with
 * catalogs that vanish or are set back. After each change of the site an observer looks whether every
 * backup that is listed or pinned still has all its chunks, and whether all see one history.
 */
import { AppError } from "../../src/base/error.ts";
import { fromHex, sha256, sha256Hex } from "../../src/base/hex.ts";
import { commitBackup } from "../../src/cas/write/backup-commit.ts";
import { dropPin, forgetBackups, pinBackup, undoForget } from "../../src/cas/clean/backup-marks.ts";
import { runCleanup } from "../../src/cas/clean/cleanup.ts";
import type { CommitRules } from "../../src/cas/write/commit-rules.ts";
import { COMMIT_RULES } from "../../src/cas/write/commit-rules.ts";
import { decodeEntry } from "../../src/cas/log/entry.ts";
import { drawId, logKey, manifestKey } from "../../src/cas/format/ids.ts";
import { packKey } from "../../src/cas/format/pack.ts";
import { Repository } from "../../src/cas/log/repository.ts";
import { isPinned, listedBackups } from "../../src/cas/log/state.ts";
import { listTreeNodes } from "../../src/cas/format/tree.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import type { SmallBackup, SmallNode } from "../cas/small-backups.ts";
import { openNode, openSource, readSmall, smallChunk, storeSmall } from "../cas/small-backups.ts";
import { seededRandom, StillClock } from "../sites/still-clock.ts";
import type { Distance } from "./distant-site.ts";
import { DistantSite } from "./distant-site.ts";
import { VirtualClock } from "./virtual-clock.ts";

/** One walk. */
export type WalkOptions = {
  readonly seed: number;
  /** Virtual time; everybody stops after it, and late requests arrive. */
  readonly durationMs: number;
  readonly rules?: Partial<CommitRules>;
  readonly distance?: Partial<Distance>;
  readonly writers?: number;
  readonly cleaners?: number;
};

/** What happened in a walk. */
export type WalkResult = {
  /** What must not be; undefined if nothing of the kind was seen. */
  readonly violation: string | undefined;
  readonly counts: Readonly<Record<string, number>>;
};

const CHUNK_COUNT = 24;
const DISTANCE: Distance = { latencyMs: 12, faultRate: 0.004, lateMs: 4000 };
const STEP_COUNT_MAX = 400_000;

/** Walks once. */
export async function walk(options: WalkOptions): Promise<WalkResult> {
  const walker = new Walker(options);
  return await walker.run();
}

class Walker {
  readonly #options: WalkOptions;
  readonly #rules: CommitRules;
  readonly #clock = new VirtualClock();
  readonly #random;
  readonly #site = new MemorySite();
  readonly #backups = new Map<string, SmallBackup & { readonly chunks: readonly string[] }>();
  readonly #ended = new Set<string>();
  readonly #hashes = new Map<number, string>();
  readonly #counts: Record<string, number> = {};
  readonly #endMs: number;
  #violation: string | undefined;
  #seen = "";

  constructor(options: WalkOptions) {
    this.#options = options;
    this.#rules = { ...COMMIT_RULES, ...options.rules };
    this.#random = seededRandom(options.seed);
    this.#endMs = this.#clock.now() + options.durationMs;
  }

  async run(): Promise<WalkResult> {
    const quiet = { clock: new StillClock(), random: seededRandom(this.#options.seed + 1) };
    const chunker = { rule: "astacus-cdc-1", averageSizeBytes: 262_144 } as const;
    await Repository.init(this.#site, { doors: quiet, chunker });
    using observer = await openNode(this.#site, quiet, { node: "observer" });
    const { writers = 3, cleaners = 2 } = this.#options;
    const actors: Promise<void>[] = [];
    for (let index = 0; index < writers; index++) {
      actors.push(this.#act(`w${index}`, (node) => this.#write(node)));
    }
    for (let index = 0; index < cleaners; index++) {
      actors.push(this.#act(`c${index}`, (node) => this.#clean(node)));
    }
    actors.push(this.#act("m", (node) => this.#mark(node)));
    for (let count = 0; count < STEP_COUNT_MAX && this.#violation === undefined; count++) {
      if (!(await this.#clock.step())) break;
      await this.#observe(observer);
    }
    if (this.#violation === undefined) {
      await Promise.all(actors);
      await this.#readAll(observer);
    }
    return { violation: this.#violation, counts: this.#counts };
  }

  /** One actor: does its work again and again, with a catalog that is sometimes lost or set back. */
  async #act(name: string, work: (node: SmallNode) => Promise<void>): Promise<void> {
    let image: Uint8Array | undefined;
    let node: SmallNode | undefined;
    while (this.#clock.now() < this.#endMs && this.#violation === undefined) {
      await this.#clock.sleep(this.#chance() * 150);
      try {
        node ??= await this.#open(name, image);
        image = undefined;
        this.#noteHash(node);
        await work(node);
      } catch (thrown) {
        this.#judge(name, thrown);
      }
      const fate = this.#chance();
      if (node === undefined || fate > 0.15) continue;
      if (fate > 0.05) image = fate > 0.1 ? node.catalog.database.serialize() : this.#oldImage;
      this.#oldImage = node.catalog.database.serialize();
      node[Symbol.dispose]();
      node = undefined;
      this.#count("reopened");
    }
    node?.[Symbol.dispose]();
  }

  /** The catalog of somebody at some time ago: a machine that was restored from its image. */
  #oldImage: Uint8Array | undefined;

  async #open(name: string, image: Uint8Array | undefined): Promise<SmallNode> {
    const random = seededRandom(Math.floor(this.#chance() * 2 ** 31));
    const distance = { ...DISTANCE, ...this.#options.distance };
    const onLate = (): void => this.#count("late arrivals");
    const site = new DistantSite(this.#site, { clock: this.#clock, random, distance, onLate });
    const how = image === undefined ? { node: name } : { node: name, image };
    return await openNode(site, { clock: this.#clock, random }, how);
  }

  async #write({ repository, source }: SmallNode): Promise<void> {
    const random = seededRandom(Math.floor(this.#chance() * 2 ** 31));
    const operation = drawId(random);
    await repository.catchUp();
    const isKept = this.#chance() < 0.4;
    const ended = new Date(this.#clock.now()).toISOString();
    try {
      const how = { random, ended, operation, isKept };
      const onSent = (): Promise<void> => this.#clock.sleep(this.#chance() ** 3 * 2500);
      const stored = await storeSmall(repository, this.#drawNumbers(), how);
      this.#backups.set(stored.draft.backup, { ...stored, chunks: [] });
      await onSent();
      if (this.#chance() < 0.1) return this.#count("abandoned");
      const { sequence } = await commitBackup(repository, source, stored.draft, {
        operation,
        rules: this.#rules,
      });
      this.#count("backups");
      this.#mustBeInLog(sequence, stored.draft.backup);
    } finally {
      this.#ended.add(operation);
    }
  }

  async #clean({ repository, source }: SmallNode): Promise<void> {
    const report = await runCleanup({
      repository,
      source,
      operation: drawId(seededRandom(Math.floor(this.#chance() * 2 ** 31))),
      policy: { minimum: 1, keepLast: 1 + Math.floor(this.#chance() * 3) },
      undoWindowMs: this.#pick([0, 0, 100, 800]),
      keepSilentMs: this.#pick([200, 2000, 100_000]),
      endedOperations: this.#chance() < 0.5 ? this.#ended : new Set(),
      now: this.#clock.now(),
      sweep: this.#chance() < 0.4,
      rules: this.#rules,
    });
    this.#count("cleanups");
    this.#count("forgotten", report.forgotten.length);
    this.#count("dropped", report.dropped.length);
    this.#count("retired", report.retired.packs);
    this.#count("deleted", report.deleted.packs);
    this.#count("merges", report.merges.length);
    this.#count("repacks", report.repacks.length);
    this.#count("garbage", report.garbage.objects);
    this.#count("alarms", report.alarms.length);
  }

  async #mark({ repository }: SmallNode): Promise<void> {
    const state = await repository.catchUp();
    const operation = drawId(seededRandom(Math.floor(this.#chance() * 2 ** 31)));
    const open = (): SmallNode["source"] => openSource(repository);
    const common = { operation, rules: this.#rules };
    const backup = this.#pick([...state.backups.values()]);
    const pin = this.#pick([...state.pins.keys()]);
    const action = this.#pick(["forget", "undo", "undo", "pin", "unpin", "unpin"] as const);
    await this.#clock.sleep(this.#chance() * 100);
    if (backup === undefined) return;
    const id = backup.backup;
    if (action === "forget" && listedBackups(state).length > 1) {
      const how = { backups: [id], reason: "by name", scope: "all" } as const;
      await forgetBackups(repository, { ...how, ...common });
    } else if (action === "undo") {
      const won = await undoForget(repository, open, { backup: id, ...common });
      if (won !== undefined) this.#count("undone");
    } else if (action === "pin") {
      await pinBackup(repository, open, { backup: id, pin: operation, reason: "pin", ...common });
      this.#count("pinned");
    } else if (pin !== undefined) {
      await dropPin(repository, { pin, ...common });
    }
  }

  /** Looks at the site after each change of its log, and after each removal. */
  async #observe(observer: SmallNode): Promise<void> {
    const seen = `${this.#site.objects.size}`;
    const isLogGrown = this.#site.objects.has(logKey(observer.repository.state.sequence + 1));
    if (seen === this.#seen && !isLogGrown) return;
    this.#seen = seen;
    if (!isLogGrown) return await this.#check(observer);
    await observer.repository.catchUp();
    this.#noteHash(observer);
    await this.#check(observer);
  }

  async #check({ repository, source }: SmallNode): Promise<void> {
    const { state, index } = repository;
    for (const record of state.backups.values()) {
      if (record.forgotten !== undefined && !isPinned(state, record.backup)) continue;
      const known = this.#backups.get(record.backup);
      if (known === undefined) return this.#fail(`nobody made backup ${record.backup}`);
      if (!this.#site.objects.has(manifestKey(record.manifest.id, record.manifest.birth))) {
        return this.#fail(`the manifest of ${record.backup} is gone`);
      }
      let { chunks } = known;
      if (chunks.length === 0) {
        try {
          chunks = await chunksOf(known, source);
        } catch (thrown) {
          return this.#fail(`backup ${record.backup} cannot be read: ${String(thrown)}`);
        }
        this.#backups.set(record.backup, { ...known, chunks });
      }
      for (const chunk of chunks) {
        const places = index.find(Buffer.from(chunk, "latin1"));
        const isThere = places.some(({ pack, birth }) =>
          this.#site.objects.has(packKey(pack, birth)),
        );
        if (!isThere) {
          const what = places.length === 0 ? "is in no pack" : "has lost its pack";
          return this.#fail(
            `entry ${state.sequence}: a chunk of backup ${record.backup} (${record.sequence}) ${what}`,
          );
        }
      }
    }
  }

  /** At the end, a node that has seen nothing reads every byte, and comes to the same state. */
  async #readAll(observer: SmallNode): Promise<void> {
    const quiet = { clock: new StillClock(), random: seededRandom(this.#options.seed + 2) };
    using fresh = await openNode(this.#site, quiet, { node: "fresh" });
    const { state } = fresh.repository;
    await observer.repository.catchUp();
    if (state.entryHash !== observer.repository.state.entryHash) this.#fail("two histories");
    for (const record of state.backups.values()) {
      if (record.forgotten !== undefined && !isPinned(state, record.backup)) continue;
      const known = this.#backups.get(record.backup);
      try {
        if (known !== undefined) await readSmall(fresh, known);
      } catch (thrown) {
        this.#fail(`backup ${record.backup} cannot be restored: ${String(thrown)}`);
      }
    }
    this.#count("entries", state.sequence);
    this.#count("objects", this.#site.objects.size);
  }

  #mustBeInLog(sequence: number, backup: string): void {
    const bytes = this.#site.objects.get(logKey(sequence));
    const entry = bytes === undefined ? undefined : decodeEntry(bytes, sequence);
    if (entry?.kind === "backup" && entry.body.backup === backup) return;
    this.#fail(`backup ${backup} was reported good and is not entry ${sequence}`);
  }

  #noteHash({ repository }: SmallNode): void {
    const { sequence, entryHash } = repository.state;
    const bytes = this.#site.objects.get(logKey(sequence));
    const found = bytes === undefined ? "missing" : sha256Hex(bytes);
    const known = this.#hashes.get(sequence) ?? found;
    this.#hashes.set(sequence, known);
    if (entryHash !== known || entryHash !== found) this.#fail(`two histories at ${sequence}`);
  }

  /** What an actor may meet on a bad line, or because others were faster. */
  #judge(name: string, thrown: unknown): void {
    if (!(thrown instanceof AppError)) {
      this.#fail(`${name}: ${thrown instanceof Error ? (thrown.stack ?? "") : String(thrown)}`);
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

  #chance(): number {
    return this.#random.fraction();
  }

  #pick<Item>(items: readonly Item[]): Item {
    return items[Math.floor(this.#chance() * items.length)]!;
  }
}

/** Ids of all chunks that a backup needs: contents, listing, pack list. */
async function chunksOf(backup: SmallBackup, source: SmallNode["source"]): Promise<string[]> {
  const fetch = (id: Uint8Array, length: number): Promise<Uint8Array> => source.fetch(id, length);
  const ids = backup.numbers.map((number) => sha256(smallChunk(number)));
  const roots = [backup.listing, ...backup.draft.lists.map(({ root }) => root)];
  for (const root of roots) {
    ids.push(fromHex(root.id));
    for await (const { id } of listTreeNodes(root, fetch)) ids.push(Uint8Array.from(id));
  }
  return ids.map((id) => Buffer.from(id).toString("latin1"));
}
