/**
 * The toy's product against the toy itself: whatever the toy does between any two system calls of a
 * capture, nothing that was acknowledged before the capture began is missing afterwards.
 */
import { describe, expect, test } from "bun:test";
import type { Doors } from "../../src/base/doors.ts";
import { joinPath, parentPath } from "../../src/base/path.ts";
import type { ClusterPhaseContext, Json, NodePhaseContext } from "../../src/products/product.ts";
import { createScriptedProduct } from "../../src/products/scripted.ts";
import { writeRegistry } from "../../src/products/scripted-registry.ts";
import { MemoryFileSystem } from "../simulation/memory-file-system.ts";
import { seededRandom, StillClock } from "../sites/still-clock.ts";
import type { ToyAction } from "./toy-database.ts";
import { missingRecords, run, ToyDatabase } from "./toy-database.ts";

const ROOT = "/data";
const SCRATCH = "/scratch";
const REGISTRY = { revision: 1, members: { a: { shards: [0, 1] }, b: { shards: [2] } } };
const ACTIONS: readonly ToyAction[] = ["append", "rotate", "snapshot", "flush", "cleanup"];

describe("capture", () => {
  test("loses nothing acknowledged, wherever another action of the toy comes in between", async () => {
    let tried = 0;
    let restarted = 0;
    for (const actions of [
      ...pairs(ACTIONS),
      ["snapshot", "cleanup", "flush", "snapshot", "cleanup"],
    ]) {
      for (let call = 0; call < 60; call += 3) {
        const world = openWorld();
        fill(world.toy);
        const before = new Map(world.toy.acknowledged);
        letIn(world, call, actions as ToyAction[]);
        const answer = await captureIn(world);
        world.files.fault = undefined;
        const restored = restoreCopy(world);
        expect(missingRecords(before, restored.read()), `${actions.join()} at ${call}`).toEqual([]);
        tried += 1;
        restarted += tries(answer) > 1 ? 1 : 0;
      }
    }
    console.log(`captures: ${tried} interleavings, ${restarted} began again`);
    expect(restarted).toBeGreaterThan(0);
  });

  test("loses nothing acknowledged while the toy works step by step from a seed", async () => {
    for (let seed = 0; seed < 150; seed += 1) {
      const random = seededRandom(seed);
      const world = openWorld();
      fill(world.toy);
      const before = new Map(world.toy.acknowledged);
      workFromSeed(world, random);
      await captureIn(world);
      world.files.fault = undefined;
      const missing = missingRecords(before, restoreCopy(world).read());
      expect(missing, `seed ${seed}`).toEqual([]);
    }
  });

  test("takes of a log what was there when it was linked", async () => {
    const world = openWorld();
    world.toy.append("one");
    await captureIn(world);
    world.toy.append("two");
    expect([...restoreCopy(world).read().values()]).toEqual(["one"]);
  });

  test("gives up with advice when the toy never holds still", async () => {
    const world = openWorld({ captureTries: 3 });
    fill(world.toy);
    endlessly(world);
    expect(captureIn(world)).rejects.toMatchObject({ kind: "incomplete", retryable: true });
  });

  test("leaves nothing behind when it is released, even twice", async () => {
    const world = openWorld();
    fill(world.toy);
    await captureIn(world);
    await phase(world, "release");
    await phase(world, "release");
    expect(world.files.readDirectory(SCRATCH)).toEqual([]);
  });

  test("can be run again from its start", async () => {
    const world = openWorld();
    fill(world.toy);
    await captureIn(world);
    await captureIn(world);
    expect(missingRecords(world.toy.acknowledged, restoreCopy(world).read())).toEqual([]);
  });
});

describe("the registry", () => {
  test("that moved between the two readings sends the backup back to the first", async () => {
    const world = openWorld();
    const first = await cluster(world, "read-registry", {});
    expect(first.inputs).toEqual({ a: { shards: [0, 1] }, b: { shards: [2] } });
    expect(await cluster(world, "read-registry-again", first.state)).toEqual({});
    writeRegistry(
      world.files,
      `${ROOT}/registry.json`,
      { ...REGISTRY, revision: 2 },
      { node: "a" },
    );
    const again = await cluster(world, "read-registry-again", first.state);
    expect(again).toMatchObject({ redo: "read-registry" });
  });

  test("says who must be there, whoever answered", () => {
    const { product, doors } = openWorld();
    const context = clusterContext(doors, { registry: REGISTRY });
    expect(product.completeness(context, ["a", "c"])).toEqual({
      complete: false,
      problems: ["member b of the registry, with shards 2, is missing"],
    });
    expect(product.completeness(context, ["a", "b"])).toEqual({ complete: true, problems: [] });
  });

  test("names the new nodes after a restore to other ones", async () => {
    const world = openWorld();
    const outcome = await cluster(world, "plan-registry", { registry: REGISTRY }, [
      { from: "a", to: "x" },
      { from: "b", to: "a" },
    ]);
    const moved = { revision: 2, members: { x: { shards: [0, 1] }, a: { shards: [2] } } };
    expect(outcome.inputs).toEqual({ "*": moved });
    await phase(world, "start", moved);
    expect(JSON.parse(readAll(world.files, `${ROOT}/registry.json`))).toEqual(moved);
  });
});

describe("restore", () => {
  test("refuses a toy that runs", () => {
    const world = openWorld();
    expect(phase(world, "stop")).rejects.toMatchObject({ kind: "refused" });
  });

  test("stops a toy that runs if it may, and starts it again", async () => {
    const world = openWorld({ whenRunning: "stop" });
    await phase(world, "stop");
    expect(world.files.lstat(`${ROOT}/running`)).toBeUndefined();
    await phase(world, "start", REGISTRY);
    expect(world.files.lstat(`${ROOT}/running`)).toBeDefined();
  });

  test("places checkpoints after everything else", () => {
    const { product, doors } = openWorld();
    for (const { group } of product.targets(nodeContext(doors, null))) {
      expect([group?.("0001.checkpoint"), group?.("0001.data")]).toEqual([1, 0]);
    }
  });
});

test("settings that the toy does not know are refused by name", () => {
  expect(() => openWorld({ sped: 1 })).toThrow(/sped/);
});

type World = ReturnType<typeof openWorld>;

function openWorld(settings: Record<string, string | number> = {}) {
  const clock = new StillClock();
  const files = new MemoryFileSystem({ clock });
  const doors: Doors = {
    clock,
    random: seededRandom(1),
    files,
    databases: { open: unused, remove: unused },
    network: { call: unused },
    outside: { run: unused, fetch: unused },
  };
  const product = createScriptedProduct({ type: "scripted", root: ROOT, settings });
  const toy = new ToyDatabase(files, ROOT).start();
  files.makeDirectory(SCRATCH);
  writeRegistry(files, `${ROOT}/registry.json`, REGISTRY, { node: "a" });
  return { files, doors, product, toy };
}

function unused(): never {
  throw new Error("the toy needs no such door");
}

function fill(toy: ToyDatabase): void {
  for (const step of ["1", "2"]) toy.append(`first ${step}`);
  toy.flush();
  toy.append("second");
  toy.snapshot();
  toy.append("third");
  toy.rotate();
  toy.append("fourth");
}

/** At the given call of the capture, all of the actions happen at once. */
function letIn(world: World, call: number, actions: readonly ToyAction[]): void {
  const at = world.files.callCount + call;
  world.files.fault = () => {
    if (world.files.callCount < at) return;
    world.files.fault = undefined;
    for (const action of actions) run(world.toy.steps(action));
  };
}

/** Before each call of the capture, the toy does a few steps or none. */
function workFromSeed(world: World, random: { fraction(): number }): void {
  let steps = world.toy.steps("append");
  const hook = (): void => {
    world.files.fault = undefined;
    for (let count = Math.floor(random.fraction() * 8); count > 0; count -= 1) {
      if (steps.next().done !== true) continue;
      steps = world.toy.steps(ACTIONS[Math.floor(random.fraction() * ACTIONS.length)]!);
    }
    world.files.fault = hook;
  };
  world.files.fault = hook;
}

/** After each listing of the logs, the toy takes all of them away. */
function endlessly(world: World): void {
  const hook = (call: string): void => {
    if (call !== "link") return;
    world.files.fault = undefined;
    world.toy.snapshot();
    world.toy.cleanup();
    world.files.fault = hook;
  };
  world.files.fault = hook;
}

async function captureIn(world: World): Promise<Json> {
  return await phase(world, "capture", { shards: [0] });
}

async function phase(world: World, name: string, input: Json = null): Promise<Json> {
  const phases = [...world.product.backupPhases, ...world.product.restorePhases];
  const found = phases.find((one) => one.name === name);
  if (found?.on !== "nodes") throw new Error(`${name} is no phase of nodes`);
  return await found.run(nodeContext(world.doors, input));
}

async function cluster(
  world: World,
  name: string,
  state: { readonly [key: string]: Json } | undefined,
  shares?: ClusterPhaseContext["shares"],
) {
  const phases = [...world.product.backupPhases, ...world.product.restorePhases];
  const found = phases.find((one) => one.name === name);
  if (found?.on !== "cluster") throw new Error(`${name} is no phase of the cluster`);
  return await found.run({
    ...clusterContext(world.doors, state ?? {}),
    ...(shares === undefined ? {} : { shares }),
  });
}

/** Copies what the volumes show to another disk, as a restore would, and opens a toy on it. */
function restoreCopy(world: World): ToyDatabase {
  const target = new MemoryFileSystem({ clock: new StillClock() });
  target.makeDirectory(ROOT);
  for (const volume of world.product.volumes(nodeContext(world.doors, null))) {
    target.makeDirectory(volume.root);
    for (const entry of volume.entries) {
      expect(parentPath(entry.path)).toBe("");
      const bytes = new TextEncoder().encode(readAll(world.files, entry.readPath));
      const handle = target.open(joinPath(volume.root, entry.path), "create");
      target.write(handle, bytes.subarray(0, entry.sizeBytesCaptured ?? bytes.length), 0);
      target.close(handle);
    }
  }
  return new ToyDatabase(target, ROOT);
}

function readAll(files: MemoryFileSystem, path: string): string {
  const handle = files.open(path, "r");
  const bytes = new Uint8Array(files.stat(handle).sizeBytes);
  files.read(handle, bytes, 0);
  files.close(handle);
  return new TextDecoder().decode(bytes);
}

function nodeContext(doors: Doors, input: Json): NodePhaseContext {
  return { ...common(doors), node: "a", zone: "", scratch: SCRATCH, input };
}

function clusterContext(
  doors: Doors,
  state: { readonly [key: string]: Json },
): ClusterPhaseContext {
  const nodes = ["a", "b"].map((name) => ({ name, zone: "" }));
  return { ...common(doors), nodes, results: new Map(), state };
}

function common(doors: Doors) {
  return { doors, operation: "0".repeat(32), signal: new AbortController().signal, say: () => {} };
}

function tries(answer: Json): number {
  const { captured } = answer as { captured: { tries: number } };
  return captured.tries;
}

function pairs(actions: readonly ToyAction[]): ToyAction[][] {
  return actions.flatMap((first) => actions.map((second) => [first, second]));
}
