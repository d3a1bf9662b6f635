/**
 * Hex and SHA-256: one spelling for one id.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { fromHex, sha256, sha256Hex, toHex } from "../../src/base/hex.ts";

describe("hex", () => {
  test("survives the way there and back", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        expect(fromHex(toHex(bytes))).toEqual(bytes);
      }),
    );
  });

  test("shows a part of a buffer, not the whole", () => {
    expect(toHex(new Uint8Array([1, 2, 255, 4]).subarray(1, 3))).toBe("02ff");
  });

  test("refuses every other spelling", () => {
    for (const text of ["f", "FF", "0g", "0x00", " 00", "00\n"]) {
      expect(() => fromHex(text)).toThrow("lower-case hex");
    }
  });
});

describe("sha256", () => {
  test("is the published one", () => {
    const abc = new TextEncoder().encode("abc");
    const known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    expect(sha256Hex(abc)).toBe(known);
    expect(toHex(sha256(abc))).toBe(known);
  });

  test("gives an array of its own each time", () => {
    const first = sha256(new Uint8Array(1));
    const second = sha256(new Uint8Array(2));
    expect(first).not.toEqual(second);
    expect(first.buffer.byteLength).toBe(32);
  });
});
