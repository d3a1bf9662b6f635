/**
 * Damage that lasts: one object of the store is hidden, torn or has a flipped bit for everybody, and
 * whoever reads must say so or be right. Nothing may be restored wrongly, `verify` may not call good
 * what cannot be restored, and what is backed up meanwhile must restore when the damage is mended.
 */
import assert from "node:assert/strict";
import { toAppError } from "../../src/base/error.ts";
import type { Shade } from "./shaded-site.ts";
import type { FoundBackup, SimulatedCluster } from "./simulated-cluster.ts";
import type { Expectations } from "./walk-expectations.ts";

/** How many backups are tried while an object is damaged. */
const TRIED_MAX = 3;

/** Damages an object, looks at what readers make of it, lets `work` go on beside it, and mends it. */
export async function damageObject(
  cluster: SimulatedCluster,
  expectations: Expectations,
  work: () => Promise<void>,
): Promise<void> {
  const before = await cluster.listed();
  const key = cluster.pick(await listKeys(cluster));
  const shade = cluster.pick<Shade>([
    { kind: "hidden" },
    { kind: "torn" },
    { kind: "flipped", bit: cluster.draw(2 ** 30) },
  ]);
  cluster.countFault(`object ${shade.kind} for long: ${key.split("/")[0]}`);
  cluster.store.shades.set(key, shade);
  const isGood = await verifyAside(cluster);
  for (const backup of before.slice(-TRIED_MAX)) {
    const isRestored = await tryBackup(cluster, expectations, backup);
    const what = `${key} is ${shade.kind}, ${backup.name} cannot be restored, and verify is content`;
    assert(isRestored || !isGood, what);
  }
  await work();
  cluster.store.shades.clear();
}

/** Keys of all objects but the newest entry of the log, which no other one proves yet. */
export async function listKeys(cluster: SimulatedCluster): Promise<string[]> {
  const store = await cluster.openStore();
  const list = async (): Promise<string[]> => {
    const keys: string[] = [];
    for await (const { key } of store.list("")) keys.push(key);
    return keys;
  };
  const keys = await cluster.clock.run(list());
  const newest = keys.findLast((key) => key.startsWith("log/"));
  return keys.filter((key) => key !== newest);
}

/** True if a deep look from outside finds nothing wrong. */
async function verifyAside(cluster: SimulatedCluster): Promise<boolean> {
  try {
    return (await cluster.read((reader) => reader.verify({ deep: true }))).ok;
  } catch (thrown) {
    return mustBeExpected(thrown);
  }
}

/** False if the backup cannot be restored, and says so; throws if it is restored wrongly. */
async function tryBackup(
  cluster: SimulatedCluster,
  expectations: Expectations,
  backup: FoundBackup,
): Promise<boolean> {
  let disk;
  try {
    disk = await cluster.restoreAside(backup.id);
  } catch (thrown) {
    return mustBeExpected(thrown);
  }
  expectations.checkContent(backup, disk);
  return true;
}

/** An error that people are told; anything else is a defect of ours. */
function mustBeExpected(thrown: unknown): false {
  if (toAppError(thrown).kind === "internal") throw thrown;
  return false;
}
