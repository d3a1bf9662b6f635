/**
 * Every crash point of a rotation of keys: it ends before or after each of its requests. Whoever has
 * the old identity and the new one opens all that was stored at any time; backups go on; and the same
 * command once more leaves nothing that the new identity alone does not open.
 */
import { expect, test } from "bun:test";
import { drawId } from "../../src/cas/format/ids.ts";
import { rotateKeys } from "../../src/cas/keys/rotate-keys.ts";
import { FaultySite } from "../../src/sites/faulty-site.ts";
import type { Fault, FaultCall } from "../../src/sites/faulty-site.ts";
import { choosePoints, CRASH_LOOP_MS_MAX, describeCount } from "../simulation/chosen-points.ts";
import { ENCRYPTION, READER, STRANGER } from "./encryption-keys.ts";
import { openNode, readSmall } from "./small-backups.ts";
import type { SmallNode } from "./small-backups.ts";
import { caught, SmallWorld } from "./small-world.ts";

/** All of them by `bun run crash-points`. */
const POINT_COUNT = 12;

test(
  "a crash anywhere in a rotation of keys, and the same once more, leaves all open to the new one",
  async () => {
    const started = performance.now();
    const calls = await listCalls();
    // A read that is done changes nothing: to die after it is to die before the next request.
    const all = calls.flatMap((kind, index) => [
      { index, fault: "error-before" as const },
      ...(kind === "put" ? [{ index, fault: "error-after" as const }] : []),
    ]);
    const points = choosePoints(all, POINT_COUNT);
    for (const { index, fault } of points) await crashAt(index, fault);
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    const count = describeCount(points.length, points.length, all.length);
    console.log(`crash points of key rotate: ${count} (${calls.length} requests) in ${seconds} s`);
    // A note, a key object of each backup, the entry.
    expect(calls.filter((kind) => kind === "put")).toHaveLength(5);
  },
  CRASH_LOOP_MS_MAX,
);

/** Three backups, whose session keys are wrapped for the old identity. */
async function worldToRotate(): Promise<SmallWorld> {
  const world = await SmallWorld.create({ encryption: ENCRYPTION });
  const node = await world.open();
  for (const numbers of [[1, 2, 3], [4], [1, 5]]) await world.backup(node, numbers);
  return world;
}

async function listCalls(): Promise<string[]> {
  using world = await worldToRotate();
  const calls: string[] = [];
  await rotateOver(world, ({ kind }) => {
    calls.push(kind);
    return undefined;
  });
  await expectOpen(world, [STRANGER.identity]);
  return calls;
}

async function crashAt(at: number, fault: "error-before" | "error-after"): Promise<void> {
  using world = await worldToRotate();
  const error = new Error("crash");
  const end = await caught(
    rotateOver(world, ({ index }) => {
      if (index < at) return undefined;
      return { fault: index === at ? fault : "error-before", error };
    }),
  );
  expect(String(end)).toContain("crash");
  await expectOpen(world, [READER.identity, STRANGER.identity]);
  // A node that has not been told of the new recipients yet.
  await world.backup(await world.open(), [6, 7]);
  await rotateOver(world, () => undefined);
  await expectOpen(world, [STRANGER.identity]);
}

async function rotateOver(
  world: SmallWorld,
  fault: (call: FaultCall) => Fault | undefined,
): Promise<void> {
  const { random, clock } = world;
  const { repository } = await world.open(new FaultySite(world.site, { random, clock, fault }));
  await rotateKeys(repository, {
    identities: [READER.identity],
    recipients: [STRANGER.recipient],
    operation: drawId(random),
  });
}

/** Every backup is read whole by somebody who has seen nothing, with these identities. */
async function expectOpen(world: SmallWorld, identities: readonly string[]): Promise<void> {
  using fresh: SmallNode = await openNode(world.site, world, {
    node: "fresh",
    encryption: ENCRYPTION,
    identities,
  });
  const { repository } = fresh;
  const opener = repository.openerFor(identities);
  for (const id of repository.state.keys.keys()) await opener.sessionKey(id, {});
  expect(repository.state.backups.size).toBe(world.backups.size);
  for (const backup of world.backups.values()) await readSmall(fresh, backup);
}
