/** What a bucket's settings about locks, encryption and classes come to, and what is refused. */
import { expect, test } from "bun:test";
import { DAY_MS } from "../../src/base/units.ts";
import { parseSharedConfig } from "../../src/server/config.ts";
import { ConfigProblems } from "../../src/server/config-problems.ts";

function siteOf(settings: string) {
  const text = `cluster: c\nproduct: {type: files, root: /srv}\nsites:\n  - {name: s, ${settings}}\n`;
  const environment = {};
  const readFile = (): string => "";
  return parseSharedConfig({ text, fileName: "/etc/c.conf", environment, readFile, hostName: "a" })
    .sites[0];
}

function problemsOf(settings: string): string {
  try {
    siteOf(settings);
  } catch (thrown) {
    if (thrown instanceof ConfigProblems) return thrown.message;
    throw thrown;
  }
  throw new TypeError("no problem was found");
}

test("a bucket is told how to keep objects", () => {
  const settings =
    "type: s3, bucket: abc, lock: {mode: governance, period: 7d}, sse: aws:kms, kmsKeyId: k, " +
    "storageClass: {data: GLACIER_IR}, unsafeCreate: single-writer";
  expect(siteOf(settings)).toMatchObject({
    lock: { mode: "governance", periodMs: 7 * DAY_MS },
    sse: "aws:kms",
    kmsKeyId: "k",
    storageClass: { data: "GLACIER_IR" },
    unsafeCreate: "single-writer",
  });
});

test("locks have periods of thirty days unless told, and nothing is locked unless asked", () => {
  expect(siteOf("type: s3, bucket: abc, lock: {mode: compliance}")).toMatchObject({
    lock: { mode: "compliance", periodMs: 30 * DAY_MS },
  });
  expect(Object.keys(siteOf("type: s3, bucket: abc"))).not.toContain("lock");
});

test.each([
  ["type: directory, path: /b, lock: {mode: governance}", "a folder cannot lock"],
  ["type: s3, bucket: abc, lock: {period: 30d}", "mode"],
  ["type: s3, bucket: abc, lock: {mode: governance, period: 1s}", "period"],
  ["type: s3, bucket: abc, kmsKeyId: k", "sse: aws:kms"],
  ["type: s3, bucket: abc, storageClass: {data: DEEP_ARCHIVE}", "storageClass"],
  ["type: s3, bucket: abc, unsafeCreate: true", "single-writer"],
])("%s is refused", (settings, reason) => {
  expect(problemsOf(settings)).toContain(reason);
});
