/**
 * A random walk of a simulated cluster: people and cron jobs change data, back up, restore, export,
 * verify, clean up, forget, bring back, cancel and shut down, while nodes die, wires break, the power
 * fails, stores falter, objects rot, disks fill up, clocks jump and catalogs are lost. After each step
 * everything is healed and the promises are checked (walk-expectations.ts); what does not hold is
 * thrown, with the seed and the step in its message.
 */
import assert from "node:assert/strict";
import { errnoError } from "../../src/base/errno.ts";
import type { RetentionPolicy } from "../../src/cas/clean/retention.ts";
import { listedBackups } from "../../src/cas/log/state.ts";
import type { OperationEvent, OperationRecord } from "../../src/cluster/operations.ts";
import type { ToyDatabase } from "../products/toy-database.ts";
import { changeFiles, readTree } from "./cluster-data.ts";
import { SimulatedCluster } from "./simulated-cluster.ts";
import { DATA_FOLDER, PRODUCT_ROOT } from "./simulated-node.ts";
import type { SimulatedNode } from "./simulated-node.ts";
import { damageObject } from "./walk-damage.ts";
import { Expectations } from "./walk-expectations.ts";
import { disturb } from "./walk-faults.ts";
import { exportArchive, look, restoreOffline, restorePart } from "./walk-readers.ts";

/** What a walk came to. */
export type WalkReport = {
  readonly trace: string;
  readonly steps: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly outcomes: Readonly<Record<string, number>>;
};

type Step = (walk: ClusterWalk) => Promise<void>;

const HOUR_MS = 3_600_000;
const YEAR_MS = 365 * 24 * HOUR_MS;

/** How often each step is taken. */
const STEPS: readonly (readonly [weight: number, name: string, step: Step])[] = [
  [20, "back up", (walk) => walk.backUp()],
  [5, "restore", (walk) => walk.restore()],
  [3, "restore a part", (walk) => restorePart(walk)],
  [3, "restore offline", (walk) => restoreOffline(walk)],
  [3, "export", (walk) => exportArchive(walk)],
  [2, "look", (walk) => look(walk)],
  [7, "clean up", (walk) => walk.cleanUp()],
  [4, "mark", (walk) => walk.mark()],
  [4, "two coordinators", (walk) => walk.twoCoordinators()],
  [3, "cancel", (walk) => walk.cancel()],
  [2, "shut down", (walk) => walk.shutDown()],
  [3, "restart", (walk) => walk.restart()],
  [3, "cut the power", (walk) => walk.cutPower()],
  [4, "lose or spoil a catalog", (walk) => walk.spoilCatalog()],
  [2, "replace a machine", (walk) => walk.replaceMachine()],
  [4, "damage an object", (walk) => walk.damage()],
  [2, "jump", (walk) => walk.jump()],
  [2, "verify", (walk) => walk.verify()],
];

/** Walks from a seed. */
export async function walkCluster(seed: number, stepCount: number): Promise<WalkReport> {
  const cluster = await SimulatedCluster.create({
    seed,
    nodeCount: [1, 2, 3, 3, 3, 4, 5, 7][seed % 8]!,
    product: seed % 2 === 0 ? "files" : "scripted",
    degraded: seed % 5 === 0,
    store: seed % 3 === 0 ? "directory" : "objects",
    rereadShare: seed % 7 === 0 ? 0.3 : 0,
    skewMsMax: seed % 4 === 0 ? 12 * HOUR_MS : 0,
    mirrors: seed % 6 === 1 ? ["mirror"] : [],
  });
  const walk = new ClusterWalk(cluster);
  for (let step = 1; step <= stepCount; step += 1) {
    let name = "";
    try {
      name = walk.drawStep();
      await walk.takeStep(name);
      await walk.expectations.check();
    } catch (thrown) {
      const why = thrown instanceof Error ? thrown.message : String(thrown);
      throw new Error(`seed ${seed}, step ${step} (${name}): ${why}`, { cause: thrown });
    }
  }
  await walk.expectations.checkAll();
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
  readonly cluster: SimulatedCluster;
  readonly expectations: Expectations;
  /** Databases of a node as they were some time ago. */
  readonly #oldImages = new Map<string, Map<string, Uint8Array>>();
  #stepCount = 0;
  #hasRestored = false;

  constructor(cluster: SimulatedCluster) {
    this.cluster = cluster;
    this.expectations = new Expectations(cluster);
  }

  drawStep(): string {
    const total = STEPS.reduce((sum, [weight]) => sum + weight, 0);
    let left = this.cluster.draw(total);
    return STEPS.find(([weight]) => (left -= weight) < 0)![1];
  }

  async takeStep(name: string): Promise<void> {
    this.cluster.note(`step ${name}`);
    const [, , step] = STEPS.find(([, one]) => one === name)!;
    await step(this);
    await this.#heal();
  }

  async #heal(): Promise<void> {
    this.#stepCount += 1;
    await this.cluster.heal();
    // Whoever puts other files below a toy has to start it again.
    if (this.#hasRestored) for (const node of this.cluster.nodes) this.cluster.openToy(node);
    this.#hasRestored = false;
  }

  async backUp(): Promise<void> {
    const coordinator = this.cluster.pick(this.cluster.nodes);
    this.#changeData();
    const isQuiet = this.cluster.product === "scripted" || this.cluster.chance(0.6);
    const name = this.expectations.expect(isQuiet);
    if (this.cluster.chance(0.15)) this.#makeUnreadable(name);
    const started = coordinator.member.startBackup({ name });
    const isDisturbed = await this.#disturb(coordinator, 0.6);
    const stop = this.#keepBusy(isQuiet);
    const record = await this.cluster.end(coordinator, started);
    stop();
    this.#note(record, isDisturbed, name);
    if (this.cluster.chance(0.1)) this.cluster.cutPower();
  }

  async twoCoordinators(): Promise<void> {
    const { nodes } = this.cluster;
    const one = this.cluster.pick(nodes);
    const other = this.cluster.pick(nodes);
    if (one === other) return;
    this.#changeData();
    const names = [this.expectations.expect(true), this.expectations.expect(true)];
    const first = one.member.startBackup({ name: names[0]! });
    const second = other.member.startBackup({ name: names[1]! });
    const isDisturbed = await this.#disturb(one, 0.3);
    const records = [
      await this.cluster.end(one, first),
      await this.cluster.end(other, second).catch(() => undefined),
    ];
    for (const [index, record] of records.entries()) this.#note(record, true, names[index]);
    const done = records.filter((record) => record?.state === "done").length;
    if (!isDisturbed) assert(done >= 1, "of two coordinators one must get through");
  }

  /** A restore that is disturbed may fail; the same one again, undisturbed, may not. */
  async restore(): Promise<void> {
    const backups = (await this.cluster.listed()).filter(({ complete }) => complete);
    if (backups.length === 0) return;
    const backup = this.cluster.pick(backups);
    await this.expectations.checkBackup(backup);
    const coordinator = this.cluster.pick(this.cluster.nodes);
    if (this.cluster.chance(0.5)) {
      for (const node of this.cluster.nodes) await this.#replace(node);
    }
    const first = coordinator.member.startRestore({ backup: backup.id });
    const isDisturbed = await this.#disturb(coordinator, 0.5);
    let record = await this.cluster.end(coordinator, first);
    this.#note(record, isDisturbed);
    // What was reported as restored survives the loss of power.
    if (record?.state === "done" && this.cluster.chance(0.3)) this.cluster.cutPower();
    this.#stepCount += 1;
    await this.cluster.heal();
    if (record?.state !== "done") {
      const again = coordinator.member.startRestore({ backup: backup.id });
      record = await this.cluster.end(coordinator, again);
      this.#note(record, false);
    }
    this.expectations.checkRestored(backup);
    for (const node of this.cluster.nodes) this.cluster.openToy(node);
  }

  async cleanUp(): Promise<void> {
    const coordinator = this.cluster.pick(this.cluster.nodes);
    const minimum = 1 + this.cluster.draw(4);
    const request = {
      retention: this.cluster.pick<RetentionPolicy>([
        { minimum, maximum: minimum },
        { minimum, maximum: minimum },
        { minimum: 1, keepLast: minimum },
        { minimum: 1, keepWithinMs: HOUR_MS, hourly: 3, daily: 2, yearly: 2 },
        { minimum: 1, keepDays: 1, weekly: 1, monthly: 2 },
      ]),
      undoWindowMs: this.cluster.pick([0, 0, HOUR_MS]),
      sweep: this.cluster.chance(0.3),
    };
    if (this.cluster.chance(0.3)) await this.#planCleanup(coordinator, request);
    const started = coordinator.member.startCleanup(request);
    const isDisturbed = await this.#disturb(coordinator, 0.5);
    this.#note(await this.cluster.end(coordinator, started), isDisturbed);
  }

  /** A dry run says what would be done, and does nothing. */
  async #planCleanup(node: SimulatedNode, request: object): Promise<void> {
    const before = node.member.repository.state.sequence;
    const started = node.member.startCleanup({ ...request, dryRun: true });
    this.#note(await this.cluster.end(node, started), false);
    assert(node.member.repository.state.sequence >= before);
    const { member } = this.cluster.pick(this.cluster.nodes);
    const backups = await this.cluster.clock.run(member.listBackups());
    assert.equal(backups.length, (await this.cluster.listed()).length, "a dry run forgot a backup");
  }

  async mark(): Promise<void> {
    const found = await this.cluster.listed();
    if (found.length === 0) return;
    const coordinator = this.cluster.pick(this.cluster.nodes);
    const { id, pinned } = this.cluster.pick(found);
    const backups = [id];
    const kinds = pinned ? (["unpin"] as const) : (["delete", "delete", "pin"] as const);
    const kind = this.cluster.pick(kinds);
    const record = await this.cluster.end(
      coordinator,
      coordinator.member.startMark(kind, { backups }),
    );
    this.#note(record, false);
    if (kind !== "delete" || this.cluster.chance(0.5)) return;
    const undo = coordinator.member.startMark("undelete", { backups });
    this.#note(await this.cluster.end(coordinator, undo), false);
    const names = (await this.cluster.listed()).map((backup) => backup.id);
    assert(names.includes(id), `backup ${id} was brought back and is not listed`);
  }

  /** Whatever runs ends soon when it is cancelled, and leaves nothing that is in the way. */
  async cancel(): Promise<void> {
    const node = this.cluster.pick(this.cluster.nodes);
    const { record: started, name } = this.#startSomething(node);
    if (started === undefined) return;
    const events: OperationEvent[] = [];
    const watch = async (): Promise<void> => {
      for await (const event of node.member.operations.watch(started.id)) events.push(event);
    };
    const watched = watch();
    this.#later(this.cluster.draw(400), () => {
      this.cluster.note("cancel");
      node.member.operations.cancel(started.id, "somebody said so");
    });
    const record = await this.cluster.end(node, started);
    await this.cluster.clock.run(watched);
    this.#note(record, record?.state === "cancelled", name);
    assert.equal(events.at(-1)?.type, "end", "a watcher was not told of the end");
  }

  /** A server that leaves in an orderly way cancels what it runs, and the journal says so. */
  async shutDown(): Promise<void> {
    const node = this.cluster.pick(this.cluster.nodes);
    const { record, name } = this.#startSomething(node);
    await this.cluster.clock.pass(this.cluster.draw(400));
    const { member } = node;
    const left = Promise.race([member[Symbol.asyncDispose](), node.life.death]);
    await this.cluster.clock.run(left, HOUR_MS);
    node.kill();
    await this.cluster.clock.run(this.cluster.restart(node));
    if (record === undefined) return;
    const found = node.member.operations.get(record.id);
    assert(found !== undefined, "an operation is forgotten");
    assert(["cancelled", "done"].includes(found.state), `${record.kind} is ${found.state}`);
    this.#note(found, true, name);
  }

  async restart(): Promise<void> {
    const node = this.cluster.pick(this.cluster.nodes);
    this.cluster.countFault("restart");
    node.version = this.cluster.pick(["1.0.0", "1.0.1"]);
    node.kill();
  }

  async cutPower(): Promise<void> {
    this.cluster.cutPower();
  }

  /** The catalog goes, or turns into one of some time ago, or a byte of it rots. */
  async spoilCatalog(): Promise<void> {
    const node = this.cluster.pick(this.cluster.nodes);
    node.kill();
    const path = `${DATA_FOLDER}/catalog.sqlite`;
    const image = node.images.get(path);
    const fate = this.cluster.draw(4);
    const old = this.#oldImages.get(node.name);
    if (fate === 0 && image !== undefined) {
      this.cluster.countFault("catalog lost");
      node.images.delete(path);
    } else if (fate === 1 && image !== undefined) {
      this.cluster.countFault("catalog byte flipped");
      const copy = image.slice();
      for (let count = 3; count > 0; count -= 1) copy[this.cluster.draw(copy.length)]! ^= 64;
      node.images.set(path, copy);
    } else if (old !== undefined) {
      this.cluster.countFault("old machine image");
      for (const [name, bytes] of old) node.images.set(name, bytes);
    }
    this.#oldImages.set(node.name, new Map(node.images));
  }

  async replaceMachine(): Promise<void> {
    const node = this.cluster.pick(this.cluster.nodes);
    this.cluster.countFault("machine replaced");
    await this.#replace(node);
  }

  /** While an object is damaged, backups and cleanups go on, and may fail. */
  async damage(): Promise<void> {
    const { cluster, expectations } = this;
    await damageObject(cluster, expectations, async () => {
      const node = cluster.pick(cluster.nodes);
      const { record, name } = this.#startSomething(node);
      if (record !== undefined) this.#note(await cluster.end(node, record), true, name);
    });
  }

  async jump(): Promise<void> {
    this.cluster.countFault("clock jumped a year");
    this.cluster.clock.jump(YEAR_MS);
  }

  async verify(): Promise<void> {
    const node = this.cluster.pick(this.cluster.nodes);
    const found = await this.cluster.listed();
    const one = this.cluster.chance(0.4) && found.length > 0 ? this.cluster.pick(found) : undefined;
    const request = {
      deep: this.cluster.chance(0.6),
      ...(one === undefined ? {} : { backup: one.id }),
    };
    const record = await this.cluster.end(node, node.member.startVerify(request));
    this.#note(record, false);
    const report = record?.result as { ok: boolean; problems: unknown[] };
    assert(report.ok, `verify found ${JSON.stringify(report.problems.slice(0, 3))}`);
  }

  /** An operation of any kind; nothing where there is nothing to do it with. */
  #startSomething(node: SimulatedNode): {
    readonly record?: OperationRecord;
    readonly name?: string;
  } {
    const kind = this.cluster.pick(["backup", "backup", "restore", "cleanup", "verify"] as const);
    const { member } = node;
    switch (kind) {
      case "backup": {
        this.#changeData();
        const name = this.expectations.expect(true);
        return { record: member.startBackup({ name }), name };
      }
      case "cleanup":
        return { record: member.startCleanup({ retention: { minimum: 2, maximum: 2 } }) };
      case "verify":
        return { record: member.startVerify({ deep: true }) };
      case "restore": {
        // By what the node knows: others may be unable to read the store just now.
        const known = listedBackups(member.repository.state);
        const backup = known.find(({ complete }) => complete);
        this.#hasRestored = true;
        return backup === undefined
          ? {}
          : { record: member.startRestore({ backup: backup.backup }) };
      }
    }
  }

  #changeData(): void {
    for (const node of this.cluster.nodes) {
      const toy = this.cluster.toys.get(node.name);
      if (toy === undefined) changeFiles(node.files, PRODUCT_ROOT, this.cluster.random);
      else this.#workToy(toy);
      if (this.cluster.chance(0.5)) node.files.syncAll();
    }
    if (this.cluster.chance(0.1)) {
      this.cluster.registryRevision += 1;
      this.cluster.writeRegistries();
    }
  }

  #workToy(toy: ToyDatabase): void {
    for (let count = this.cluster.draw(6); count > 0; count -= 1) {
      const action = this.cluster.pick([
        "append",
        "append",
        "append",
        "rotate",
        "snapshot",
        "flush",
      ]);
      if (action === "append") toy.append("r".repeat(this.cluster.draw(4000)));
      else toy[action as "rotate" | "snapshot" | "flush"]();
    }
    if (this.cluster.chance(0.3)) toy.cleanup();
  }

  /** Nobody may open one of the files, until the step ends. */
  #makeUnreadable(name: string): void {
    if (this.cluster.product !== "files") return;
    const node = this.cluster.pick(this.cluster.nodes);
    const tree = [...readTree(node.files, PRODUCT_ROOT)].filter(([, shown]) =>
      shown.startsWith("file"),
    );
    if (tree.length === 0) return;
    const [path] = this.cluster.pick(tree);
    this.cluster.countFault("file unreadable");
    this.expectations.mustGet(name).unreadable = `${node.name}/${path}`;
    node.files.fault = (call, at) => {
      if (call === "open" && at === `${PRODUCT_ROOT}/${path}`) {
        throw errnoError({ action: "open", path: at, code: "EACCES" });
      }
    };
  }

  /** Databases work on while they are backed up, and so do the users of files that are not quiet. */
  #keepBusy(isQuiet: boolean): () => void {
    let isOver = false;
    const work = (node: SimulatedNode): void => {
      if (isOver) return;
      const toy = this.cluster.toys.get(node.name);
      try {
        if (toy !== undefined) this.#workToy(toy);
        else if (!isQuiet) changeFiles(node.files, PRODUCT_ROOT, this.cluster.random);
      } catch {
        // A full disk is a trouble of the database's, too.
      }
      this.cluster.clock.at(20 + this.cluster.draw(200), () => work(node));
    };
    for (const node of this.cluster.nodes) {
      this.cluster.clock.at(this.cluster.draw(100), () => work(node));
    }
    return () => {
      isOver = true;
    };
  }

  /** Lets something go wrong with some chance while an operation runs; true if it may make it fail. */
  async #disturb(coordinator: SimulatedNode, share: number): Promise<boolean> {
    if (!this.cluster.chance(share)) return false;
    await disturb(this.cluster, coordinator, (ms, happen) => this.#later(ms, happen));
    return true;
  }

  /** What is planned for one step does not happen in the next one. */
  #later(ms: number, happen: () => void): void {
    const step = this.#stepCount;
    this.cluster.clock.at(ms, () => {
      if (this.#stepCount === step) happen();
    });
  }

  async #replace(node: SimulatedNode): Promise<void> {
    node.replace();
    this.#oldImages.delete(node.name);
    this.cluster.openToy(node);
    await this.cluster.clock.run(node.start());
  }

  /** What was not disturbed must succeed. */
  #note(record: OperationRecord | undefined, isDisturbed: boolean, name?: string): void {
    const outcome = record === undefined ? "coordinator died" : record.state;
    const key = `${record?.kind ?? "operation"} ${outcome}`;
    this.outcomes[key] = (this.outcomes[key] ?? 0) + 1;
    if (outcome === "done" && name !== undefined) this.expectations.reported(name);
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
