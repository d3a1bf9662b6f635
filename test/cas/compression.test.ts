/** What is found out for one chunk of a file serves for those that follow it, while they are alike. */
import { describe, expect, test } from "bun:test";
import { LevelChooser } from "../../src/cas/format/compression.ts";
import { noise } from "./noise.ts";

const SIZE_BYTES = 128 * 1024;
const MATCHES = -1;
const FOLLOWERS = 7;

const random = noise(SIZE_BYTES, 1);

/** Shrinks by the entropy of its digits alone: nothing repeats. */
const digits = new TextEncoder().encode(Buffer.from(noise(SIZE_BYTES / 2, 2)).toString("hex"));

/** Shrinks by matches alone: random blocks that come again. */
const blocks = new Uint8Array(SIZE_BYTES);
for (let at = 0; at < SIZE_BYTES; at += 64) blocks.set(noise(64, (at / 64) % 8), at);

function openChooser(): LevelChooser {
  return new LevelChooser({ level: 1 });
}

describe("a chunk that begins a file", () => {
  test("is sampled, whatever came before", () => {
    const chooser = openChooser();
    expect(chooser.choose(random, false)).toBeUndefined();
    expect(chooser.choose(digits, false)?.level).toBe(1);
    chooser.took(1, 0.55);
    expect(chooser.choose(blocks, false)?.level).toBe(MATCHES);
    chooser.took(MATCHES, 0.02);
    expect(chooser.choose(random, false)).toBeUndefined();
  });
});

describe("a chunk that follows one of its file", () => {
  test("is stored as it is like that one, and each eighth is sampled again", () => {
    const chooser = openChooser();
    expect(chooser.choose(random, false)).toBeUndefined();
    for (let count = 0; count < FOLLOWERS; count += 1) {
      expect(chooser.choose(digits, true)).toBeUndefined();
    }
    expect(chooser.choose(digits, true)?.level).toBe(1);
  });

  test("is sampled at once where something repeats", () => {
    const chooser = openChooser();
    expect(chooser.choose(random, false)).toBeUndefined();
    expect(chooser.choose(blocks, true)?.level).toBe(MATCHES);
  });

  test("is compressed like that one, with a bound on what it may become", () => {
    const chooser = openChooser();
    chooser.choose(blocks, false);
    chooser.took(MATCHES, 0.5);
    for (let count = 0; count < FOLLOWERS; count += 1) {
      const choice = chooser.choose(random, true)!;
      expect(choice.level).toBe(MATCHES);
      expect(choice.sizeBytesMax / SIZE_BYTES).toBeCloseTo(0.55, 5);
      chooser.took(MATCHES, 0.5);
    }
    expect(chooser.choose(random, true)).toBeUndefined();
  });

  test.each([
    ["shrank much more", MATCHES, 0.4],
    ["shrank less", MATCHES, 0.56],
    ["was compressed in another way", 1, 0.5],
    ["did not shrink", MATCHES, 0.95],
  ])("is sampled if one before it %s", (_how, level, share) => {
    const chooser = openChooser();
    chooser.choose(blocks, false);
    chooser.took(MATCHES, 0.5);
    expect(chooser.choose(random, true)?.level).toBe(MATCHES);
    chooser.took(level, share);
    expect(chooser.choose(random, true)).toBeUndefined();
  });

  test("of slowly changing data is compared with the first, not with the last", () => {
    const chooser = openChooser();
    chooser.choose(blocks, false);
    chooser.took(MATCHES, 0.5);
    for (const share of [0.52, 0.54, 0.56]) {
      expect(chooser.choose(random, true)?.level).toBe(MATCHES);
      chooser.took(MATCHES, share);
    }
    expect(chooser.choose(random, true)).toBeUndefined();
  });
});
