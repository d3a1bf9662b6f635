/** Sizes, durations and the guess at mistyped words. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { nearest } from "../../src/base/nearest.ts";
import { formatDuration, formatSize, parseDuration } from "../../src/base/units.ts";
import { parseRate, parseSize } from "../../src/base/units.ts";

describe("rates", () => {
  test.each([
    ["50MB/s", 50_000_000],
    ["512 KiB / s", 512 * 1024],
  ])("reads %s", (text, bytes) => {
    expect(parseRate(text)).toBe(bytes);
  });

  test.each(["50MB", "50", "/s", "50MB/m", "50Mbit/s"])("refuses %p", (text) => {
    expect(() => parseRate(text)).toThrow("is not");
  });
});

describe("sizes", () => {
  test.each([
    ["16MiB", 16 * 1024 * 1024],
    ["2GB", 2_000_000_000],
    ["1.5 GiB", 1.5 * 1024 ** 3],
    ["4096", 4096],
    ["10kib", 10_240],
  ])("reads %s", (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  test.each(["", "MiB", "-1MiB", "16M", "0.3B", "1e9", "9999999TiB", "16MiB!"])(
    "refuses %p",
    (text) => {
      expect(() => parseSize(text)).toThrow("is not");
    },
  );

  test("exact texts are read back as the same number", () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 ** 50 }), (bytes) => {
        expect(parseSize(formatSize(bytes, { exact: true }))).toBe(bytes);
      }),
    );
  });

  test("are rounded for people", () => {
    expect([0, 1023, 1536, 300 * 1024 ** 2].map((bytes) => formatSize(bytes))).toEqual([
      "0 B",
      "1023 B",
      "1.5 KiB",
      "300 MiB",
    ]);
  });
});

describe("durations", () => {
  test.each([
    ["500ms", 500],
    ["30s", 30_000],
    ["1h30m", 5_400_000],
    ["7d", 604_800_000],
    ["2w", 1_209_600_000],
    ["1d 12h", 129_600_000],
  ])("reads %s", (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });

  test.each(["", "30", "5 minutes", "s", "-1s", "1y", "0.5ms", "30 s x"])("refuses %p", (text) => {
    expect(() => parseDuration(text)).toThrow("is not");
  });

  test("exact texts are read back as the same number", () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 ** 45 }), (ms) => {
        expect(parseDuration(formatDuration(ms, { exact: true }))).toBe(ms);
      }),
    );
  });

  test("are shortened to two units for people, and never show sixty of a smaller one", () => {
    expect([0, 999.6, 3200, 59_999, 3_599_700, 90_061_000].map((ms) => formatDuration(ms))).toEqual(
      ["0ms", "1s", "3.2s", "1m", "1h", "1d 1h"],
    );
  });
});

describe("the nearest word", () => {
  test("forgives slips, case and separators", () => {
    const keys = ["keepLast", "keepWithin", "minimum", "maximum"];
    expect(nearest("keepLsat", keys)).toBe("keepLast");
    expect(nearest("keep_within", keys)).toBe("keepWithin");
    expect(nearest("MINIMUM", keys)).toBe("minimum");
  });

  test("is nothing rather than far-fetched", () => {
    expect(nearest("colour", ["minimum", "daily"])).toBeUndefined();
  });
});
