/**
 * What must be in the backups of a simulated cluster, and the promises that are checked after each
 * step by a reader who knows nothing but the store: what was reported good is in the log, no entry of
 * the log ever changes or vanishes, a backup restores to what was there, and later to the same again.
 */
import assert from "node:assert/strict";
import { sha256Hex } from "../../src/base/hex.ts";
import { decodeEntry } from "../../src/cas/log/entry.ts";
import { missingRecords, ToyDatabase } from "../products/toy-database.ts";
import { differences, readTree } from "./cluster-data.ts";
import type { Tree } from "./cluster-data.ts";
import type { MemoryFileSystem } from "./memory-file-system.ts";
import type { FoundBackup, SimulatedCluster } from "./simulated-cluster.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";

/** What must be in a backup. */
export type Expectation = {
  /** The files of each node, where nobody changed them meanwhile. */
  readonly files: ReadonlyMap<string, Tree> | undefined;
  /** What the toys had acknowledged before the backup began. */
  readonly records: ReadonlyMap<string, ReadonlyMap<number, string>>;
  /** A path that could not be read, as `node/path`: it may be missing if the backup says so. */
  unreadable: string | undefined;
  /** What the first reader found: all later ones must find the same. */
  found: Tree | undefined;
};

/** Picks paths of a share, by what lies there. */
export type Wanted = (path: string, shown: string) => boolean;

type SeenEntry = { readonly hash: string; readonly backup: string | undefined };

/** See the file's header. */
export class Expectations {
  readonly #cluster: SimulatedCluster;
  readonly #expected = new Map<string, Expectation>();
  /** Names of backups whose operations ended well. */
  readonly #reported = new Set<string>();
  /** The log as it was seen last, and after how many power cuts. */
  #log: SeenEntry[] = [];
  #powerCutCount = 0;

  constructor(cluster: SimulatedCluster) {
    this.#cluster = cluster;
  }

  /** Remembers what a backup that begins now must hold; answers its name. */
  expect(isQuiet: boolean): string {
    const { nodes, toys } = this.#cluster;
    const name = `b${this.#expected.size + 1}`;
    const trees = nodes.map((node) => [node.name, readTree(node.files, PRODUCT_ROOT)] as const);
    const records = [...toys].map(([node, toy]) => [node, new Map(toy.acknowledged)] as const);
    this.#expected.set(name, {
      files: isQuiet ? new Map(trees) : undefined,
      records: new Map(records),
      unreadable: undefined,
      found: undefined,
    });
    return name;
  }

  mustGet(name: string): Expectation {
    const expected = this.#expected.get(name);
    assert(expected !== undefined, `nobody has asked for ${name}`);
    return expected;
  }

  /** From now on the backup must be in the log. */
  reported(name: string): void {
    this.#reported.add(name);
  }

  /** The log keeps its promises, and a random listed backup restores. */
  async check(): Promise<void> {
    await this.#checkLog();
    const found = await this.#cluster.listed();
    if (found.length > 0) await this.checkBackup(this.#cluster.pick(found));
  }

  /** Late requests land, and then every listed backup restores. */
  async checkAll(): Promise<void> {
    for (const { site } of this.#cluster.nodes) await this.#cluster.clock.run(site.settle());
    await this.#checkLog();
    for (const backup of await this.#cluster.listed()) await this.checkBackup(backup);
  }

  /** On an empty disk. */
  async checkBackup(backup: FoundBackup): Promise<void> {
    this.checkContent(backup, await this.#cluster.restoreAside(backup.id));
  }

  /** The backup was put to `/r` of a disk. */
  checkContent(backup: FoundBackup, disk: MemoryFileSystem): void {
    const expected = this.mustGet(backup.name);
    const found = readTree(disk, "/r");
    expected.found ??= found;
    const changed = differences(expected.found, found);
    assert.deepEqual(changed, [], `${backup.name} restores otherwise than before`);
    for (const node of backup.nodes) {
      if (this.#cluster.product === "files") this.#checkFiles(backup, node, disk);
      else this.#checkRecords(backup, node, new ToyDatabase(disk, `/r/${node}`));
    }
  }

  /** The nodes hold what the backup holds; more, where files are not removed. */
  checkRestored(backup: FoundBackup, wanted: Wanted = () => true): void {
    for (const node of this.#cluster.nodes) {
      if (!backup.nodes.includes(node.name)) continue;
      if (this.#cluster.product === "files") {
        this.checkPlaced(backup, { from: node.name, to: node.name }, wanted);
      } else {
        this.#checkRecords(backup, node.name, new ToyDatabase(node.files, PRODUCT_ROOT));
        const marker = node.files.lstat(`${PRODUCT_ROOT}/running`);
        assert(marker !== undefined, "the toy was not started");
      }
    }
  }

  /** One share of plain files lies on a node. */
  checkPlaced(
    backup: FoundBackup,
    pair: { readonly from: string; readonly to: string },
    wanted: Wanted = () => true,
  ): void {
    const held = this.mustGet(backup.name).found;
    const node = this.#cluster.nodes.find(({ name }) => name === pair.to)!;
    const there = readTree(node.files, PRODUCT_ROOT, false);
    const prefix = `${pair.from}/root/`;
    const wrong = [...(held ?? [])].flatMap(([path, shown]) => {
      const name = path.slice(prefix.length);
      if (!path.startsWith(prefix) || !wanted(name, shown)) return [];
      const found = there.get(name);
      return isPlaced(shown, found) ? [] : [`${name}: ${shown} became ${found}`];
    });
    assert.deepEqual(wrong, [], `node ${pair.to} after the restore of ${backup.name}`);
  }

  #checkFiles(backup: FoundBackup, node: string, disk: MemoryFileSystem): void {
    const expected = this.mustGet(backup.name);
    const wanted = expected.files?.get(node);
    if (wanted === undefined) return;
    const wrong = differences(wanted, readTree(disk, `/r/${node}/root`)).filter((line) => {
      const path = line.slice(0, line.indexOf(": "));
      return `${node}/${path}` !== expected.unreadable || backup.complete;
    });
    assert.deepEqual(wrong, [], `${backup.name} of node ${node} is not what was there`);
  }

  #checkRecords(backup: FoundBackup, node: string, toy: ToyDatabase): void {
    const wanted = this.mustGet(backup.name).records.get(node) ?? new Map<number, string>();
    const missing = missingRecords(wanted, toy.read());
    assert.deepEqual(missing, [], `${backup.name} of node ${node} lacks records`);
  }

  /** Entries that nobody had been told of may go in a power cut; nothing else ever. */
  async #checkLog(): Promise<void> {
    const log = await this.#readLog();
    const hasLostPower = this.#powerCutCount !== this.#cluster.powerCutCount;
    assert(log.length >= this.#log.length || hasLostPower, "entries of the log vanished");
    for (const [index, entry] of log.entries()) {
      const before = this.#log[index];
      if (before === undefined || before.hash === entry.hash) continue;
      const isNewTail = hasLostPower && !this.#hasReported(this.#log.slice(index));
      assert(isNewTail, `entry ${index + 1} of the log became another one`);
      break;
    }
    this.#log = log;
    this.#powerCutCount = this.#cluster.powerCutCount;
    const backups = new Set(log.map(({ backup }) => backup));
    for (const name of this.#reported) {
      assert(backups.has(name), `${name} was reported good and is not in the log`);
    }
  }

  #hasReported(entries: readonly SeenEntry[]): boolean {
    return entries.some(({ backup }) => backup !== undefined && this.#reported.has(backup));
  }

  async #readLog(): Promise<SeenEntry[]> {
    const store = await this.#cluster.openStore();
    const read = async (): Promise<SeenEntry[]> => {
      const log: SeenEntry[] = [];
      for await (const { key } of store.list("log/")) {
        const bytes = (await store.get(key))!;
        const sequence = log.length + 1;
        assert.equal(Number(key.slice("log/".length)), sequence, `the log has a gap at ${key}`);
        const entry = decodeEntry(bytes, sequence);
        const backup = entry.kind === "backup" ? entry.body.name : undefined;
        log.push({ hash: sha256Hex(bytes), backup });
      }
      return log;
    };
    return await this.#cluster.clock.run(read());
  }
}

/** A link to what the backup does not hold, and an attribute that came later, are nobody's mistake. */
function isPlaced(wanted: string, found: string | undefined): boolean {
  const attribute = / user\.kind=([^]*?)(?= \d+ [0-9a-f]{64}|$)/;
  const held = attribute.exec(wanted)?.[0];
  const bare = wanted.replace(/ is .*$/, "").replace(attribute, "");
  return found?.replace(attribute, "") === bare && (held === undefined || found.includes(held));
}
