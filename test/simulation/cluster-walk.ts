/**
 * A random walk of a simulated cluster: people and cron jobs change data, back up, restore, clean up,
 * forget and bring back, while nodes die, wires break, stores falter, disks fill up, clocks jump and
 * catalogs rot. After each step everything is healed and a reader who knows nothing but the store
 * checks the promises; what does not hold is thrown, with the seed and the step in its message.
 */
import assert from "node:assert/strict";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { missingRecords, ToyDatabase } from "../products/toy-database.ts";
import { changeFiles, differences, readTree } from "./cluster-data.ts";
import type { Tree } from "./cluster-data.ts";
import { SimulatedCluster } from "./simulated-cluster.ts";
import type { FoundBackup } from "./simulated-cluster.ts";
import { DATA_FOLDER, PRODUCT_ROOT } from "./simulated-node.ts";
import type { SimulatedNode } from "./simulated-node.ts";

/** What a walk came to. */
export type WalkReport = {
  readonly trace: string;
  readonly steps: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly outcomes: Readonly<Record<string, number>>;
};

/** What must be in a backup, by its name. */
type Expectation = {
  /** The files of each node, where nobody changed them meanwhile. */
  readonly files: ReadonlyMap<string, Tree> | undefined;
  /** What the toys had acknowledged before the backup began. */
  readonly records: ReadonlyMap<string, ReadonlyMap<number, string>>;
  /** What the first reader found: all later ones must find the same. */
  found: Tree | undefined;
};

type Step = (walk: ClusterWalk) => Promise<void>;

const HOUR_MS = 3_600_000;
const YEAR_MS = 365 * 24 * HOUR_MS;

/** How often each step is taken. */
const STEPS: readonly (readonly [weight: number, name: string, step: Step])[] = [
  [10, "back up", (walk) => walk.backUp()],
  [3, "restore", (walk) => walk.restore()],
  [4, "clean up", (walk) => walk.cleanUp()],
  [2, "mark", (walk) => walk.mark()],
  [2, "two coordinators", (walk) => walk.twoCoordinators()],
  [2, "restart", (walk) => walk.restart()],
  [2, "lose or spoil a catalog", (walk) => walk.spoilCatalog()],
  [1, "replace a machine", (walk) => walk.replaceMachine()],
  [1, "jump", (walk) => walk.jump()],
  [1, "verify", (walk) => walk.verify()],
];

/** Walks from a seed. */
export async function walkCluster(seed: number, stepCount: number): Promise<WalkReport> {
  const nodeCount = [1, 2, 3, 3, 3, 4, 5, 7][seed % 8]!;
  const cluster = await SimulatedCluster.create({
    seed,
    nodeCount,
    product: seed % 2 === 0 ? "files" : "scripted",
    degraded: seed % 5 === 0,
  });
  const walk = new ClusterWalk(cluster);
  for (let step = 1; step <= stepCount; step += 1) {
    const name = await walk.takeStep();
    try {
      await walk.check();
    } catch (thrown) {
      const why = thrown instanceof Error ? thrown.message : String(thrown);
      throw new Error(`seed ${seed}, step ${step} (${name}): ${why}`, { cause: thrown });
    }
  }
  await walk.checkAll();
  return {
    trace: cluster.trace,
    steps: stepCount,
    faults: { ...cluster.faults, ...cluster.network.counts, ...siteFaults(cluster) },
    outcomes: walk.outcomes,
  };
}

/** See the file's header. */
export class ClusterWalk {
  readonly outcomes: Record<string, number> = {};
  readonly #cluster: SimulatedCluster;
  readonly #expected = new Map<string, Expectation>();
  /** Names of backups whose operations ended well. */
  readonly #reported = new Set<string>();
  /** Databases of a node as they were some time ago. */
  readonly #oldImages = new Map<string, Map<string, Uint8Array>>();
  #backupCount = 0;
  #stepCount = 0;
  #canForget = false;

  constructor(cluster: SimulatedCluster) {
    this.#cluster = cluster;
  }

  async takeStep(): Promise<string> {
    const total = STEPS.reduce((sum, [weight]) => sum + weight, 0);
    let left = this.#cluster.draw(total);
    for (const [weight, name, step] of STEPS) {
      left -= weight;
      if (left >= 0) continue;
      this.#cluster.note(`step ${name}`);
      await step(this);
      await this.#heal();
      return name;
    }
    return "";
  }

  async #heal(): Promise<void> {
    this.#stepCount += 1;
    await this.#cluster.heal();
  }

  async backUp(): Promise<void> {
    const coordinator = this.#cluster.pick(this.#cluster.nodes);
    this.#changeData();
    const isQuiet = this.#cluster.product === "scripted" || this.#cluster.chance(0.6);
    const name = this.#expectBackup(isQuiet);
    const started = coordinator.member.startBackup({ name });
    const isDisturbed = this.#cluster.chance(0.6) && this.#disturb(coordinator);
    const stop = this.#keepBusy(isQuiet);
    const record = await this.#cluster.end(coordinator, started);
    stop();
    this.#note(record, isDisturbed, name);
  }

  async twoCoordinators(): Promise<void> {
    const { nodes } = this.#cluster;
    const one = this.#cluster.pick(nodes);
    const other = this.#cluster.pick(nodes);
    if (one === other) return;
    this.#changeData();
    const names = [this.#expectBackup(true), this.#expectBackup(true)];
    const first = one.member.startBackup({ name: names[0]! });
    const second = other.member.startBackup({ name: names[1]! });
    const isDisturbed = this.#cluster.chance(0.3) && this.#disturb(one);
    const records = [
      await this.#cluster.end(one, first),
      await this.#cluster.end(other, second).catch(() => undefined),
    ];
    for (const [index, record] of records.entries()) this.#note(record, true, names[index]);
    const done = records.filter((record) => record?.state === "done").length;
    if (!isDisturbed) assert(done >= 1, "of two coordinators one must get through");
  }

  /** A restore that is disturbed may fail; the same one again, undisturbed, may not. */
  async restore(): Promise<void> {
    const backups = (await this.#cluster.listed()).filter(({ complete }) => complete);
    if (backups.length === 0) return;
    const backup = this.#cluster.pick(backups);
    const coordinator = this.#cluster.pick(this.#cluster.nodes);
    if (this.#cluster.chance(0.5)) {
      for (const node of this.#cluster.nodes) await this.#replace(node);
    }
    const first = coordinator.member.startRestore({ backup: backup.id });
    const isDisturbed = this.#cluster.chance(0.5) && this.#disturb(coordinator);
    let record = await this.#cluster.end(coordinator, first);
    this.#note(record, isDisturbed);
    await this.#heal();
    if (record?.state !== "done") {
      const again = coordinator.member.startRestore({ backup: backup.id });
      record = await this.#cluster.end(coordinator, again);
      this.#note(record, false);
    }
    this.#checkRestored(backup);
    for (const node of this.#cluster.nodes) this.#cluster.openToy(node);
  }

  async cleanUp(): Promise<void> {
    const coordinator = this.#cluster.pick(this.#cluster.nodes);
    this.#canForget = true;
    const minimum = 1 + this.#cluster.draw(4);
    const started = coordinator.member.startCleanup({
      retention: { minimum, maximum: minimum },
      undoWindowMs: this.#cluster.pick([0, 0, HOUR_MS]),
      sweep: this.#cluster.chance(0.3),
    });
    const isDisturbed = this.#cluster.chance(0.5) && this.#disturb(coordinator);
    this.#note(await this.#cluster.end(coordinator, started), isDisturbed);
  }

  async mark(): Promise<void> {
    const found = await this.#cluster.listed();
    if (found.length === 0) return;
    const coordinator = this.#cluster.pick(this.#cluster.nodes);
    const { id, pinned } = this.#cluster.pick(found);
    const backups = [id];
    const kinds = pinned ? (["unpin"] as const) : (["delete", "delete", "pin"] as const);
    const kind = this.#cluster.pick(kinds);
    if (kind === "delete") this.#canForget = true;
    const record = await this.#cluster.end(
      coordinator,
      coordinator.member.startMark(kind, { backups }),
    );
    this.#note(record, false);
    if (kind !== "delete" || this.#cluster.chance(0.5)) return;
    const undo = coordinator.member.startMark("undelete", { backups });
    this.#note(await this.#cluster.end(coordinator, undo), false);
    const names = (await this.#cluster.listed()).map((backup) => backup.id);
    assert(names.includes(id), `backup ${id} was brought back and is not listed`);
  }

  async restart(): Promise<void> {
    const node = this.#cluster.pick(this.#cluster.nodes);
    this.#cluster.countFault("restart");
    node.version = this.#cluster.pick(["1.0.0", "1.0.1"]);
    node.kill();
  }

  /** The catalog goes, or turns into one of some time ago, or a byte of it rots. */
  async spoilCatalog(): Promise<void> {
    const node = this.#cluster.pick(this.#cluster.nodes);
    node.kill();
    const path = `${DATA_FOLDER}/catalog.sqlite`;
    const image = node.images.get(path);
    const fate = this.#cluster.draw(4);
    const old = this.#oldImages.get(node.name);
    if (fate === 0 && image !== undefined) {
      this.#cluster.countFault("catalog lost");
      node.images.delete(path);
    } else if (fate === 1 && image !== undefined) {
      this.#cluster.countFault("catalog byte flipped");
      const copy = image.slice();
      for (let count = 3; count > 0; count -= 1) copy[this.#cluster.draw(copy.length)]! ^= 64;
      node.images.set(path, copy);
    } else if (old !== undefined) {
      this.#cluster.countFault("old machine image");
      for (const [name, bytes] of old) node.images.set(name, bytes);
    }
    this.#oldImages.set(node.name, new Map(node.images));
  }

  async replaceMachine(): Promise<void> {
    const node = this.#cluster.pick(this.#cluster.nodes);
    this.#cluster.countFault("machine replaced");
    await this.#replace(node);
  }

  async jump(): Promise<void> {
    this.#cluster.countFault("clock jumped a year");
    this.#cluster.clock.jump(YEAR_MS);
  }

  async verify(): Promise<void> {
    const node = this.#cluster.pick(this.#cluster.nodes);
    const record = await this.#cluster.end(node, node.member.startVerify({ deep: true }));
    this.#note(record, false);
    const report = record?.result as { ok: boolean; problems: unknown[] };
    assert(report.ok, `verify found ${JSON.stringify(report.problems.slice(0, 3))}`);
  }

  /** A random listed backup restores, and everything that was reported good is in the log. */
  async check(): Promise<void> {
    const found = await this.#cluster.listed();
    const everListed = this.#canForget ? undefined : new Set(found.map(({ name }) => name));
    for (const name of this.#reported) {
      assert(everListed?.has(name) !== false, `${name} was reported good and is not listed`);
    }
    if (found.length > 0) await this.#checkBackup(this.#cluster.pick(found));
  }

  /** Late requests land, and then every listed backup restores. */
  async checkAll(): Promise<void> {
    for (const { site } of this.#cluster.nodes) await this.#cluster.clock.run(site.settle());
    for (const backup of await this.#cluster.listed()) await this.#checkBackup(backup);
  }

  async #checkBackup(backup: FoundBackup): Promise<void> {
    const expected = this.#expected.get(backup.name);
    assert(expected !== undefined, `nobody has asked for ${backup.name}`);
    const disk = await this.#cluster.restoreAside(backup.id);
    const found = readTree(disk, "/r");
    expected.found ??= found;
    const changed = differences(expected.found, found);
    assert.deepEqual(changed, [], `${backup.name} restores otherwise than before`);
    for (const node of backup.nodes) {
      if (this.#cluster.product === "files") {
        const wanted = expected.files?.get(node);
        if (wanted === undefined) continue;
        const wrong = differences(wanted, readTree(disk, `/r/${node}/root`));
        assert.deepEqual(wrong, [], `${backup.name} of node ${node} is not what was there`);
      } else {
        const records = new ToyDatabase(disk, `/r/${node}`).read();
        const missing = missingRecords(expected.records.get(node) ?? new Map(), records);
        assert.deepEqual(missing, [], `${backup.name} of node ${node} lacks records`);
      }
    }
  }

  /** The nodes hold what the backup holds. */
  #checkRestored(backup: FoundBackup): void {
    const expected = this.#expected.get(backup.name);
    for (const node of this.#cluster.nodes) {
      if (!backup.nodes.includes(node.name)) continue;
      if (this.#cluster.product === "files") {
        const wanted = expected?.files?.get(node.name);
        const found = readTree(node.files, PRODUCT_ROOT);
        const wrong = differences(wanted ?? new Map(), found).filter(
          (line) => wanted?.has(line.slice(0, line.indexOf(":"))) === true,
        );
        assert.deepEqual(wrong, [], `node ${node.name} after the restore of ${backup.name}`);
      } else {
        const records = new ToyDatabase(node.files, PRODUCT_ROOT).read();
        const missing = missingRecords(expected?.records.get(node.name) ?? new Map(), records);
        assert.deepEqual(missing, [], `node ${node.name} lacks records of ${backup.name}`);
        assert(
          node.files.lstat(`${PRODUCT_ROOT}/running`) !== undefined,
          "the toy was not started",
        );
      }
    }
  }

  #changeData(): void {
    for (const node of this.#cluster.nodes) {
      const toy = this.#cluster.toys.get(node.name);
      if (toy === undefined) changeFiles(node.files, PRODUCT_ROOT, this.#cluster.random);
      else this.#workToy(toy);
    }
    if (this.#cluster.chance(0.1)) {
      this.#cluster.registryRevision += 1;
      this.#cluster.writeRegistries();
    }
  }

  #workToy(toy: ToyDatabase): void {
    for (let count = this.#cluster.draw(6); count > 0; count -= 1) {
      const action = this.#cluster.pick([
        "append",
        "append",
        "append",
        "rotate",
        "snapshot",
        "flush",
      ]);
      if (action === "append") toy.append("r".repeat(this.#cluster.draw(4000)));
      else toy[action as "rotate" | "snapshot" | "flush"]();
    }
    if (this.#cluster.chance(0.3)) toy.cleanup();
  }

  #expectBackup(isQuiet: boolean): string {
    this.#backupCount += 1;
    const name = `b${this.#backupCount}`;
    const trees = this.#cluster.nodes.map(
      (node) => [node.name, readTree(node.files, PRODUCT_ROOT)] as const,
    );
    const records = [...this.#cluster.toys].map(
      ([node, toy]) => [node, new Map(toy.acknowledged)] as const,
    );
    const files = isQuiet ? new Map(trees) : undefined;
    this.#expected.set(name, { files, records: new Map(records), found: undefined });
    return name;
  }

  /** Databases work on while they are backed up, and so do the users of files that are not quiet. */
  #keepBusy(isQuiet: boolean): () => void {
    let isOver = false;
    const work = (node: SimulatedNode): void => {
      if (isOver) return;
      const toy = this.#cluster.toys.get(node.name);
      try {
        if (toy !== undefined) this.#workToy(toy);
        else if (!isQuiet) changeFiles(node.files, PRODUCT_ROOT, this.#cluster.random);
      } catch {
        // A full disk is a trouble of the database's, too.
      }
      this.#cluster.clock.at(20 + this.#cluster.draw(200), () => work(node));
    };
    for (const node of this.#cluster.nodes) {
      this.#cluster.clock.at(this.#cluster.draw(100), () => work(node));
    }
    return () => {
      isOver = true;
    };
  }

  /** Lets something go wrong while an operation runs; true if it may make it fail. */
  #disturb(coordinator: SimulatedNode): boolean {
    const cluster = this.#cluster;
    const node = cluster.pick(cluster.nodes);
    const afterMs = cluster.draw(600);
    switch (cluster.draw(7)) {
      case 0:
        cluster.countFault("node killed");
        this.#later(afterMs, () => node.kill());
        if (cluster.chance(0.5) && node !== coordinator) {
          this.#later(afterMs + 2000, () => void this.#restartQuietly(node));
        }
        return true;
      case 1:
        cluster.countFault("coordinator killed");
        this.#later(afterMs, () => coordinator.kill());
        return true;
      case 2: {
        const other = cluster.pick(cluster.nodes);
        if (other === node) return false;
        cluster.countFault("partition");
        this.#later(afterMs, () =>
          cluster.network.cut(`sim://${node.name}`, `sim://${other.name}`),
        );
        this.#later(afterMs + cluster.draw(120_000), () => cluster.network.heal());
        return true;
      }
      case 3:
        cluster.network.rates = { dropped: 0.02, answerLost: 0.03, duplicated: 0.1, delayed: 0.1 };
        return true;
      case 4:
        cluster.siteRates = {
          "error-before": 0.02,
          "error-after": 0.02,
          duplicate: 0.03,
          late: 0.02,
        };
        return true;
      case 5:
        cluster.siteRates = { storm: 0.02, slow: 0.05 };
        return true;
      default: {
        cluster.countFault("disk full");
        const { freeBytes, totalBytes } = node.files.space("/");
        node.files.setCapacity(totalBytes - freeBytes + cluster.draw(2000));
        return true;
      }
    }
  }

  /** What is planned for one step does not happen in the next one. */
  #later(ms: number, happen: () => void): void {
    const step = this.#stepCount;
    this.#cluster.clock.at(ms, () => {
      if (this.#stepCount === step) happen();
    });
  }

  async #restartQuietly(node: SimulatedNode): Promise<void> {
    if (!node.isUp) await node.start().catch(() => node.kill());
  }

  async #replace(node: SimulatedNode): Promise<void> {
    node.replace();
    this.#oldImages.delete(node.name);
    this.#cluster.openToy(node);
    await this.#cluster.clock.run(node.start());
  }

  /** What was not disturbed must succeed. */
  #note(record: OperationRecord | undefined, isDisturbed: boolean, name?: string): void {
    const outcome = record === undefined ? "coordinator died" : record.state;
    const key = `${record?.kind ?? "operation"} ${outcome}`;
    this.outcomes[key] = (this.outcomes[key] ?? 0) + 1;
    if (outcome === "done" && name !== undefined) this.#reported.add(name);
    const isDefect = record?.error?.kind === "internal";
    if (!isDefect && (isDisturbed || outcome === "done")) return;
    throw new Error(`an undisturbed ${key}: ${JSON.stringify(record?.error)}`);
  }
}

function siteFaults(cluster: SimulatedCluster): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { fault } of cluster.nodes.flatMap(({ site }) => site.injected)) {
    counts[`site: ${fault}`] = (counts[`site: ${fault}`] ?? 0) + 1;
  }
  return counts;
}
