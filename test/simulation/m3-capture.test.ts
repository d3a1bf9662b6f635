/**
 * The capture of M3 against a toy M3 that snapshots, flushes, merges, expires, deletes and is killed
 * meanwhile: nothing that was in the commit log before the capture began may be missing in what it
 * holds, read by the rules by which M3 starts. Wrong captures must be caught.
 */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { removeFolder } from "../../src/base/folders.ts";
import { verifyM3Share } from "../../src/products/m3/share-verifier.ts";
import { seededRandom } from "../cas/repository-world.ts";
import { shareOf } from "../products/m3/stored-share.ts";
import { MemoryFileSystem } from "./memory-file-system.ts";
import {
  captureAgainstFlow,
  captureInOrder,
  captureListedFirst,
  captureWithoutAgain,
  interleaved,
  shareFilesOf,
} from "./toy-m3-captures.ts";
import type { Capture, CaptureResult } from "./toy-m3-captures.ts";
import { recover } from "./toy-m3-disk.ts";
import type { Recovered } from "./toy-m3-disk.ts";
import { ToyM3 } from "./toy-m3.ts";

const ROOT = "/m3";
const SCRATCH = "/scratch";
const CAPTURES_A_WORLD = 6;

/** More of them for a long run; a seed that failed is named by the test. */
const SEED_COUNT = Number(process.env["ASTACUS_M3_SEEDS"] ?? 6);
const FIRST_SEED = Number(process.env["ASTACUS_M3_SEED"] ?? 1);

/** For long runs. */
const LONG = { timeout: 60_000 + SEED_COUNT * 10_000 };

type Tally = {
  steps: number;
  captures: number;
  /** Captures that began again because a newer snapshot was complete. */
  againCount: number;
  /** Captures that gave up: M3 moved on each time. */
  refused: number;
  /** Kills of the toy. */
  crashes: number;
  pointsChecked: number;
  /** Captures that lack a point that was promised. */
  losses: number;
  /** Captures that hold what M3 cannot have written. */
  broken: number;
  /** Filesets that were being deleted all the time while they were captured. */
  halves: number;
  firstLoss: string;
};

const NOTHING: Tally = {
  steps: 0,
  captures: 0,
  againCount: 0,
  refused: 0,
  crashes: 0,
  pointsChecked: 0,
  losses: 0,
  broken: 0,
  halves: 0,
  firstLoss: "",
};

describe("a capture of a toy M3 that runs on", () => {
  const inOrder = "in the order in which data move holds all that was in a log before";
  test(inOrder, LONG, async () => {
    const tally = await play(captureInOrder, SEED_COUNT);
    report("in order", tally);
    expect(tally.firstLoss).toBe("");
    expect(tally.losses + tally.broken).toBe(0);
    // A toy that is too tame would prove nothing.
    expect(tally.againCount).toBeGreaterThan(tally.captures / 100);
    expect(tally.crashes).toBeGreaterThan(SEED_COUNT / 2);
    expect(tally.refused).toBeLessThan(tally.captures / 2);
    expect(tally.pointsChecked).toBeGreaterThan(tally.captures * 100);
  });

  const wrong: [string, Capture][] = [
    ["lists all and links later", captureListedFirst],
    ["links against the flow of data", captureAgainstFlow],
    ["passes over a superseded snapshot", captureWithoutAgain],
  ];

  test.each(wrong)("that %s is caught", LONG, async (name, capture) => {
    const tally = await play(capture, Math.ceil(SEED_COUNT / 2));
    report(name, tally);
    expect(tally.losses).toBeGreaterThan(0);
  });
});

test("a toy M3 that is killed at any step knows all that was in its log", LONG, () => {
  const tally = { ...NOTHING };
  for (let seed = FIRST_SEED; seed < FIRST_SEED + 3; seed += 1) {
    const { toy, files, fraction } = worldOf(seed);
    for (let round = 0; round < 40; round += 1) {
      toy.run(Math.floor(fraction() * 400));
      const promised = toy.promised();
      toy.crash();
      const missing = missingIn(recover(files, ROOT, { oldestBlock: toy.oldestBlock }), promised);
      expect({ seed, round, missing }).toEqual({ seed, round, missing: [] });
      tally.pointsChecked += promised.size;
      tally.crashes += 1;
    }
    tally.steps += toy.now;
  }
  report("killed at any step", tally);
});

/** Many worlds, several captures of each, at many speeds. */
async function play(capture: Capture, seedCount: number): Promise<Tally> {
  const tally = { ...NOTHING };
  for (let seed = FIRST_SEED; seed < FIRST_SEED + seedCount; seed += 1) {
    const world = worldOf(seed);
    const { toy, fraction } = world;
    for (let round = 0; round < CAPTURES_A_WORLD; round += 1) {
      toy.run(Math.floor(fraction() * 2500));
      await captureOnce(world, capture, { tally, what: `seed ${seed}, capture ${round}` });
    }
    tally.steps += toy.now;
    tally.crashes += toy.restartCount;
  }
  return tally;
}

type World = {
  readonly files: MemoryFileSystem;
  readonly toy: ToyM3;
  readonly fraction: () => number;
};

function worldOf(seed: number): World {
  const random = seededRandom(seed);
  const fraction = (): number => random.fraction();
  let toy: ToyM3 | undefined = undefined;
  // The toy's steps are the disk's milliseconds.
  const files = new MemoryFileSystem({ clock: { now: () => nowOf(toy) } });
  toy = new ToyM3(files, ROOT, fraction);
  return { files, toy, fraction };
}

function nowOf(toy: ToyM3 | undefined): number {
  return toy?.now ?? 0;
}

async function captureOnce(
  { files, toy, fraction }: World,
  capture: Capture,
  { tally, what }: { readonly tally: Tally; readonly what: string },
): Promise<void> {
  await removeFolder(files, SCRATCH, async () => undefined);
  files.makeDirectory(SCRATCH);
  // From a capture that M3 hardly notices to one that waits for whole snapshots between two calls.
  const pace = 0.05 * 200 ** fraction();
  const mayKill = fraction() < 0.3;
  const door = interleaved(files, () => {
    toy.run(Math.floor(-Math.log(1 - fraction()) * pace));
    if (fraction() < 0.002) toy.run(Math.floor(fraction() * 1500));
    if (mayKill && fraction() < 0.002) toy.crash();
  });
  const promised = toy.promised();
  tally.captures += 1;
  let result: CaptureResult;
  try {
    result = await capture(door, ROOT, SCRATCH);
  } catch (thrown) {
    if (!(thrown instanceof AppError) || thrown.kind !== "incomplete") throw thrown;
    tally.refused += 1;
    return;
  }
  const { logSizes, tries } = result;
  const { oldestBlock } = toy;
  // What has expired meanwhile, M3 itself does not know any more.
  const kept = new Map([...promised].filter(([, block]) => block >= oldestBlock));
  tally.againCount += tries - 1;
  tally.pointsChecked += kept.size;
  try {
    if (result.note !== undefined) {
      const share = shareOf(shareFilesOf(files, SCRATCH, logSizes), {
        captures: { n1: result.note },
      });
      for await (const { path, message } of verifyM3Share(share)) {
        // The toy stood still while it deleted a fileset that nobody needs any more.
        if (message.includes("lacks bloomfilter")) tally.halves += 1;
        else tally.firstLoss ||= `${what}: ${path}: ${message}`;
      }
    }
    for (const rule of ["latest-volume", "same-uuid"] as const) {
      const missing = missingIn(recover(files, SCRATCH, { rule, logSizes, oldestBlock }), kept);
      if (missing.length === 0) continue;
      tally.losses += 1;
      tally.firstLoss ||= `${what}: ${missing.length} of ${kept.size} points (${rule})`;
      break;
    }
  } catch (thrown) {
    tally.broken += 1;
    tally.firstLoss ||= `${what}: ${String(thrown)}`;
  }
}

function missingIn(
  { flushed, unflushed }: Recovered,
  points: ReadonlyMap<number, number>,
): number[] {
  const known = new Set([...flushed.values(), ...unflushed.values()].flatMap((some) => [...some]));
  return [...points.keys()].filter((number) => !known.has(number));
}

function report(what: string, tally: Tally): void {
  const { steps, captures, againCount, refused, crashes, pointsChecked, losses, broken, halves } =
    tally;
  console.log(
    `toy M3, ${what}: ${steps} steps, ${captures} captures (${againCount} begun again, ${refused} refused, ` +
      `${losses} lost points, ${broken} broken, ${halves} half deleted), ${crashes} kills, ${pointsChecked} points checked` +
      (tally.firstLoss === "" ? "" : `; first: ${tally.firstLoss}`),
  );
}
