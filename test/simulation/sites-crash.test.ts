/**
 * Every crash point of what is done to whole sites: `site retire`, with `--lost` and without, `site
 * promote`, `sync`, `verify --repair` and backups with a mirror. The process of one node dies, or the
 * power of its machine fails, at each of its calls; then an operator gives the same command again, or
 * another one. No acknowledged backup is lost, what is primary then gives back all of them by itself,
 * and a site ends only where all that it held is elsewhere.
 */
import { describe, expect, test } from "bun:test";
import { closeLog } from "../../src/cas/copy/close-log.ts";
import type { OperationRecord } from "../../src/cluster/operations.ts";
import { CRASH_LOOP_MS_MAX } from "./chosen-points.ts";
import { readTree } from "./cluster-data.ts";
import { tryCrashPoints } from "./crash-points.ts";
import type { CrashScenario } from "./crash-points.ts";
import { BACK, FORWARD, MigrationWorld, NEW, OLD } from "./migration-world.ts";
import type { SimulatedCluster } from "./simulated-cluster.ts";
import type { SimulatedNode } from "./simulated-node.ts";
import { PRODUCT_ROOT } from "./simulated-node.ts";

/** Of each loop; all of them by `bun run crash-points`. */
const POINT_COUNT = 6;
/** What did not answer is asked again by then. */
const SILENCE_MS = 60_000;

type Step = (world: MigrationWorld) => Promise<void>;

type Loop = Pick<CrashScenario, "fate" | "staysDown"> & {
  readonly nodeCount?: number;
  /** Of both sites. */
  readonly store?: "directory";
  /** One backup is there, and the second site is configured. */
  readonly prepare: Step;
  readonly command: (node: SimulatedNode) => OperationRecord;
  readonly afterwards: Step;
  readonly check: Step;
};

type Named = readonly (readonly [string, Loop])[];

const retire = (node: SimulatedNode): OperationRecord => node.member.startRetirement({ site: OLD });
const promote = (node: SimulatedNode): OperationRecord => node.member.startPromote({ site: NEW });
const lose = (node: SimulatedNode): OperationRecord =>
  node.member.startRetirement({ site: NEW, lost: true });
const sync = (node: SimulatedNode): OperationRecord => node.member.startSync();
const repair = (node: SimulatedNode): OperationRecord =>
  node.member.startVerify({ deep: true, repair: true });

const RETIRE = { prepare: migrated, command: retire, check: checkEnd };
const RETIREMENTS: Named = [
  ["then the same once more", { ...RETIRE, afterwards: retireAgain }],
  [
    "between directories by a power cut, then the same once more",
    powerCut({ ...RETIRE, store: "directory", afterwards: retireAgain }),
  ],
  ["for good, then the same by another node", { ...RETIRE, ...elsewhere(retireByAnother) }],
  ["then a backup and the same once more", { ...RETIRE, afterwards: backUpAndRetire }],
  ["then a restore and the same once more", { ...RETIRE, afterwards: restoreAndRetire }],
  ["then migrate --undo", { ...RETIRE, afterwards: undo }],
  ["then the promotion of the site that was to end", { ...RETIRE, afterwards: promoteOld }],
  [
    "then rot where all was proved, and the same once more",
    { ...RETIRE, afterwards: retireRotten },
  ],
  [
    "that copies what came in between, then the same once more",
    { ...RETIRE, prepare: closedTooEarly, afterwards: retireAgain },
  ],
  [
    "that copies what came in between, by a power cut, then the same once more",
    powerCut({ ...RETIRE, prepare: closedTooEarly, afterwards: retireAgain }),
  ],
];

const PROMOTE = { prepare: lagging, command: promote, check: checkPromoted };
const SILENT = { ...PROMOTE, prepare: silentPrimary, check: checkReturned };
const PROMOTIONS: Named = [
  ["then the same once more", { ...PROMOTE, afterwards: promoteAgain }],
  ["by a power cut, then the same once more", powerCut({ ...PROMOTE, afterwards: promoteAgain })],
  ["for good, then the same by another node", { ...PROMOTE, ...elsewhere(promoteByAnother) }],
  ["then a backup and the same once more", { ...PROMOTE, afterwards: backUpAndPromote }],
  ["then that of the former primary", { ...PROMOTE, afterwards: promoteOld, check: checkOld }],
  ["of which the primary is silent, then the same", { ...SILENT, afterwards: promoteAgain }],
  [
    "of which the primary is silent, by a power cut, then the same",
    powerCut({ ...SILENT, afterwards: promoteAgain }),
  ],
];

const LOSE = { prepare: silentMirror, command: lose, check: checkLost };
const SYNC = { prepare: lagging, command: sync, check: checkBoth };
const REPAIR = { prepare: damaged, command: repair, check: checkMended };
const BACK_UP = { prepare: aboutToBackUp, command: backUpTwo, check: checkBoth };
const OTHERS: Named = [
  ["of retire --lost, then the same once more", { ...LOSE, afterwards: loseAgain }],
  ["of retire --lost, by a power cut", powerCut({ ...LOSE, afterwards: loseAgain })],
  ["of a sync, then the same once more", { ...SYNC, afterwards: again(sync) }],
  ["of a sync, by a power cut", powerCut({ ...SYNC, afterwards: again(sync) })],
  ["of verify --repair, then the same once more", { ...REPAIR, afterwards: again(repair) }],
  ["of verify --repair, by a power cut", powerCut({ ...REPAIR, afterwards: again(repair) })],
  ["of verify --repair, then a backup and the same", { ...REPAIR, afterwards: backUpAndRepair }],
  ["of a backup with a mirror, then another", { ...BACK_UP, afterwards: backUpAgain }],
  ["of a backup with a mirror, by a power cut", powerCut({ ...BACK_UP, afterwards: backUpAgain })],
];

describe("a crash at any point of site retire", () => {
  tryAll("of site retire ", RETIREMENTS);
});

describe("a crash at any point of site promote", () => {
  tryAll("of site promote ", PROMOTIONS);
});

describe("a crash at any point", () => {
  tryAll("", OTHERS);
});

function tryAll(prefix: string, loops: Named): void {
  for (const [name, loop] of loops) {
    test(
      `${name}: nothing is lost`,
      () => tryCrashPoints(prefix + name, scenarioOf(loop), POINT_COUNT),
      CRASH_LOOP_MS_MAX,
    );
  }
}

function scenarioOf(loop: Loop): CrashScenario {
  const { nodeCount = 1, store = "objects" } = loop;
  const worlds = new WeakMap<SimulatedCluster, MigrationWorld>();
  const step =
    (run: Step) =>
    async ({ cluster }: { readonly cluster: SimulatedCluster }): Promise<void> =>
      await run(worlds.get(cluster)!);
  return {
    ...loop,
    product: "files",
    nodeCount,
    store,
    victim: 0,
    async prepare({ cluster }) {
      const world = new MigrationWorld(cluster);
      worlds.set(cluster, world);
      await world.backUp("one");
      await world.addNew(store);
      await loop.prepare(world);
    },
    afterwards: step(loop.afterwards),
    check: step(loop.check),
  };
}

function powerCut(loop: Loop): Loop {
  return { ...loop, fate: "power cut" };
}

function elsewhere(afterwards: Step): Pick<Loop, "nodeCount" | "staysDown" | "afterwards"> {
  return { nodeCount: 2, staysDown: true, afterwards };
}

function again(command: (node: SimulatedNode) => OperationRecord): Step {
  return async (world) => {
    await world.done(world.nodes[0]!, command(world.nodes[0]!));
  };
}

// What there is before the command.

async function migrated(world: MigrationWorld): Promise<void> {
  await world.backUp("two");
  await world.migrate(FORWARD);
  await world.backUp("three");
}

/** The second site is a mirror that lacks the last backup. */
async function lagging(world: MigrationWorld): Promise<void> {
  await world.backUp("two");
  world.cluster.stores.get(NEW)!.isDown = true;
  await world.backUp("three");
  world.cluster.stores.get(NEW)!.isDown = false;
  await world.cluster.clock.pass(SILENCE_MS);
}

async function silentPrimary(world: MigrationWorld): Promise<void> {
  await lagging(world);
  world.cluster.stores.get(OLD)!.isDown = true;
  await world.cluster.clock.pass(SILENCE_MS);
}

async function silentMirror(world: MigrationWorld): Promise<void> {
  await world.backUp("two");
  world.cluster.stores.get(NEW)!.isDown = true;
  await world.cluster.clock.pass(SILENCE_MS);
}

/** A log that has ended, as an interrupted run leaves it, with a backup that is only there. */
async function closedTooEarly(world: MigrationWorld): Promise<void> {
  const { clock } = world.cluster;
  const { member } = world.nodes[0]!;
  await silentPrimary(world);
  await world.done(world.nodes[0]!, promote(world.nodes[0]!));
  await world.backUp("four");
  world.cluster.stores.get(OLD)!.isDown = false;
  await clock.pass(SILENCE_MS);
  await clock.run(member.sites.roles());
  const open = await clock.run(member.sites.repository(OLD));
  const { id: successor } = await clock.run(member.sites.primary());
  const how = { successor, reason: "retired", operation: "0".repeat(32), signal: undefined };
  await clock.run(closeLog(open.repository, how));
}

/** At the primary all is bad that a repair mends from the mirror. */
async function damaged(world: MigrationWorld): Promise<void> {
  await world.backUp("two");
  const { store } = world.cluster;
  for (const key of store.objects.keys()) {
    if (/^(pack|manifest)\//.test(key)) store.shades.set(key, { kind: "flipped", bit: 900 });
  }
}

async function aboutToBackUp(world: MigrationWorld): Promise<void> {
  await world.cluster.clock.run(world.nodes[0]!.member.sites.roles());
  world.change();
  await world.cluster.clock.pass(5_000);
  // Under two names: the one that crashes and the one after it hold the same.
  for (const name of ["two", "three"]) world.remember(name);
}

// What an operator does afterwards.

async function retireAgain(world: MigrationWorld, node = world.nodes[0]!): Promise<void> {
  await world.done(node, retire(node));
  expect(await world.sitesOfRoles(node)).toEqual([NEW]);
}

async function retireByAnother(world: MigrationWorld): Promise<void> {
  await retireAgain(world, world.nodes[1]);
}

async function backUpAndRetire(world: MigrationWorld): Promise<void> {
  await world.backUp("after");
  await world.expectAllAt(NEW);
  await retireAgain(world);
}

async function restoreAndRetire(world: MigrationWorld): Promise<void> {
  const [node] = world.nodes as [SimulatedNode];
  await world.done(node, node.member.startRestore({ backup: "one" }));
  const found = readTree(node.files, PRODUCT_ROOT);
  // A restore of plain files leaves what was made since.
  for (const [path, what] of world.wanted.get("one")!.get(node.name)!) {
    expect(found.get(path)).toBe(what);
  }
  await world.expectAllAt(NEW);
  await retireAgain(world);
}

async function undo(world: MigrationWorld): Promise<void> {
  await goBack(world, world.nodes[0]!.member.startMigration(BACK));
}

async function promoteOld(world: MigrationWorld): Promise<void> {
  await goBack(world, world.nodes[0]!.member.startPromote({ site: OLD }));
}

/** The former site is the primary again and cannot be retired; or it has ended, and that is said. */
async function goBack(world: MigrationWorld, started: OperationRecord): Promise<void> {
  const [node] = world.nodes as [SimulatedNode];
  const record = await world.cluster.end(node, started);
  const isEnded = await world.isClosed(OLD);
  if (isEnded) {
    expect(record?.error?.kind).toBe("refused");
    return await retireAgain(world);
  }
  if (record?.state !== "done") expect(record?.error?.context?.["reason"]).toBe("is-primary");
  expect(await world.primary()).toBe(OLD);
  const refused = await world.cluster.end(node, retire(node));
  expect(refused?.error?.context?.["reason"]).toBe("is-primary");
}

/** What has rotted since is not proved, whatever an interrupted run had read; mended it is. */
async function retireRotten(world: MigrationWorld): Promise<void> {
  const [node] = world.nodes as [SimulatedNode];
  const before = await world.sitesOfRoles();
  const { objects, shades } = world.cluster.stores.get(NEW)!;
  const pack = [...objects.keys()].find((key) => key.startsWith("pack/"))!;
  shades.set(pack, { kind: "flipped", bit: 900 });
  const refused = await world.cluster.end(node, retire(node));
  expect(refused?.error?.context?.["reason"]).toBe("not-proved");
  expect(await world.sitesOfRoles()).toEqual(before);
  shades.clear();
  await retireAgain(world);
}

async function promoteAgain(world: MigrationWorld, node = world.nodes[0]!): Promise<void> {
  const record = await world.cluster.end(node, promote(node));
  if (record?.state !== "done") expect(record?.error?.context?.["reason"]).toBe("is-primary");
  expect(await world.primary(node)).toBe(NEW);
}

async function promoteByAnother(world: MigrationWorld): Promise<void> {
  await promoteAgain(world, world.nodes[1]);
}

async function backUpAndPromote(world: MigrationWorld): Promise<void> {
  await world.backUp("after");
  await world.expectAllAt(await world.primary());
  await promoteAgain(world);
}

async function loseAgain(world: MigrationWorld): Promise<void> {
  const [node] = world.nodes as [SimulatedNode];
  const record = await world.cluster.end(node, lose(node));
  if (record?.state !== "done") expect(record?.error?.kind).toBe("not-found");
  expect(await world.sitesOfRoles()).toEqual([OLD]);
}

async function backUpAndRepair(world: MigrationWorld): Promise<void> {
  await world.backUp("after");
  await again(repair)(world);
}

function backUpTwo(node: SimulatedNode): OperationRecord {
  return node.member.startBackup({ name: "two" });
}

async function backUpAgain(world: MigrationWorld): Promise<void> {
  await again((node) => node.member.startBackup({ name: "three" }))(world);
  world.acknowledged.push("three");
}

// What must hold then.

/** All is at the primary; and the site has ended unless it is the primary itself. */
async function checkEnd(world: MigrationWorld): Promise<void> {
  const primary = await world.primary();
  await world.expectAllAt(primary);
  expect(await world.isClosed(OLD)).toBe(primary === NEW);
  if (primary === NEW) expect(await world.sitesOfRoles()).toEqual([NEW]);
}

async function checkPromoted(world: MigrationWorld): Promise<void> {
  expect(await world.primary()).toBe(NEW);
  await world.expectAllAt(NEW);
}

async function checkOld(world: MigrationWorld): Promise<void> {
  expect(await world.primary()).toBe(OLD);
  await world.expectAllAt(OLD);
}

/** The former primary comes back, and gives what only it had. */
async function checkReturned(world: MigrationWorld): Promise<void> {
  await world.backUp("meanwhile");
  world.cluster.stores.get(OLD)!.isDown = false;
  await world.cluster.clock.pass(SILENCE_MS);
  await again(sync)(world);
  await checkPromoted(world);
  await world.expectAllAt(OLD);
}

/** Backups wait for nobody; a lost site that comes back gets all. */
async function checkLost(world: MigrationWorld): Promise<void> {
  await world.backUp("meanwhile");
  await checkOld(world);
  world.cluster.stores.get(NEW)!.isDown = false;
  await world.cluster.clock.pass(SILENCE_MS);
  await again(sync)(world);
  await checkBoth(world);
}

async function checkBoth(world: MigrationWorld): Promise<void> {
  await checkOld(world);
  await world.expectAllAt(NEW);
}

async function checkMended(world: MigrationWorld): Promise<void> {
  const [node] = world.nodes as [SimulatedNode];
  const record = await world.done(node, node.member.startVerify({ deep: true }));
  expect(record.result).toMatchObject({ ok: true, problems: [] });
  await checkBoth(world);
}
