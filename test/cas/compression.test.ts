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

/** Repeats after more than a page: the longer of the two samples shows it alone. */
const farRepeats = new Uint8Array(SIZE_BYTES);
for (let at = 0; at < SIZE_BYTES; at += 5000) {
  farRepeats.set(noise(5000, 3).subarray(0, SIZE_BYTES - at), at);
}

function openChooser(): LevelChooser {
  return new LevelChooser({ level: 1 });
}

describe("a chunk that begins a file", () => {
  test("is sampled, whatever came before", () => {
    const chooser = openChooser();
    chooser.begin();
    expect(chooser.choose(random)).toBeUndefined();
    chooser.begin();
    expect(chooser.choose(digits)?.level).toBe(1);
    chooser.took(1, 0.55);
    chooser.begin();
    expect(chooser.choose(blocks)?.level).toBe(MATCHES);
    chooser.took(MATCHES, 0.02);
    chooser.begin();
    expect(chooser.choose(random)).toBeUndefined();
  });
});

describe("a chunk that follows one of its file", () => {
  test("is stored as it is like that one, and each eighth is sampled again", () => {
    const chooser = openChooser();
    chooser.begin();
    expect(chooser.choose(random)).toBeUndefined();
    for (let count = 0; count < FOLLOWERS; count += 1) {
      expect(chooser.choose(farRepeats)).toBeUndefined();
    }
    expect(chooser.choose(farRepeats)).toBeDefined();
  });

  test("is sampled at once where its middle shrinks, by matches or without", () => {
    const chooser = openChooser();
    chooser.begin();
    expect(chooser.choose(random)).toBeUndefined();
    expect(chooser.choose(blocks)?.level).toBe(MATCHES);
    chooser.begin();
    expect(chooser.choose(random)).toBeUndefined();
    expect(chooser.choose(digits)?.level).toBe(1);
  });

  test("is compressed like that one, with a bound on what it may become", () => {
    const chooser = openChooser();
    chooser.begin();
    chooser.choose(blocks);
    chooser.took(MATCHES, 0.5);
    for (let count = 0; count < FOLLOWERS; count += 1) {
      const choice = chooser.choose(random)!;
      expect(choice.level).toBe(MATCHES);
      expect(choice.sizeBytesMax / SIZE_BYTES).toBeCloseTo(0.55, 5);
      chooser.took(MATCHES, 0.5);
    }
    expect(chooser.choose(random)).toBeUndefined();
  });

  test.each([
    ["shrank much more", MATCHES, 0.4],
    ["shrank less", MATCHES, 0.56],
    ["was compressed in another way", 1, 0.5],
    ["did not shrink", MATCHES, 0.95],
  ])("is sampled if one before it %s", (_how, level, share) => {
    const chooser = openChooser();
    chooser.begin();
    chooser.choose(blocks);
    chooser.took(MATCHES, 0.5);
    expect(chooser.choose(random)?.level).toBe(MATCHES);
    chooser.took(level, share);
    expect(chooser.choose(random)).toBeUndefined();
  });

  test("of slowly changing data is compared with the first, not with the last", () => {
    const chooser = openChooser();
    chooser.begin();
    chooser.choose(blocks);
    chooser.took(MATCHES, 0.5);
    for (const share of [0.52, 0.54, 0.56]) {
      expect(chooser.choose(random)?.level).toBe(MATCHES);
      chooser.took(MATCHES, share);
    }
    expect(chooser.choose(random)).toBeUndefined();
  });
});
