/**
 * Checks in words: a line for each, and advice below those that failed.
 */
import type { ProductCheck } from "../products/product.ts";

/** `ok    shards: …`, `BAD   shards: …`. */
export function describeChecks(checks: readonly ProductCheck[]): string[] {
  return checks.map(({ ok, what, message, guidance }) => {
    const advice = ok || guidance === undefined ? "" : `\n      ${guidance}`;
    return `${ok ? "ok  " : "BAD "}  ${what}: ${message}${advice}`;
  });
}
