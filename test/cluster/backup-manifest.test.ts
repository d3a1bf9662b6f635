/** What the manifest says of a backup's quality, from what the nodes stored and the product judged. */
import { expect, test } from "bun:test";
import { emptyTotals } from "../../src/cas/write/backup-context.ts";
import { decodeManifest, encodeManifest } from "../../src/cas/format/manifest.ts";
import { manifestOf } from "../../src/cluster/backup-manifest.ts";
import { qualityOf } from "../../src/cluster/backup-quality.ts";
import type { NodeStoredAnswer } from "../../src/cluster/protocol.ts";
import { nodeStoredSchema } from "../../src/cluster/protocol.ts";
import type { Completeness } from "../../src/products/product.ts";

const ROOT = { id: "ab".repeat(32), length: 1, count: 0 };

function share(problems: NodeStoredAnswer["problems"] = []): NodeStoredAnswer {
  return nodeStoredSchema.parse({
    volumes: [],
    list: ROOT,
    listPacks: [],
    segments: [],
    totals: emptyTotals(),
    problems,
    problemCount: problems.length,
    plannedAt: 0,
    mirrors: [],
  });
}

function manifest(judged: Completeness, stored: NodeStoredAnswer = share()) {
  const made = manifestOf({
    id: "cd".repeat(16),
    name: "n",
    cluster: "c",
    product: "p",
    started: "2026-01-01T00:00:00.000Z",
    ended: "2026-01-01T00:00:01.000Z",
    state: {},
    coordinator: "a",
    zones: new Map(),
    versions: new Map(),
    stored: new Map([["a", stored]]),
    judged,
    missing: new Map(),
  });
  const { id, bytes } = encodeManifest(made);
  const read = decodeManifest(bytes, id);
  expect(read).toEqual(made);
  return read;
}

const WHOLE: Completeness = { complete: true, problems: [] };
const FEWER: Completeness = { complete: true, degraded: true, problems: ["shard 7: 2 of 3"] };

function quality(judged: Completeness, problems?: NodeStoredAnswer["problems"]): string {
  const { complete, degraded } = manifest(judged, share(problems));
  return qualityOf({ complete, degraded: degraded === true });
}

test("a backup with fewer copies is degraded, and names what it lacks", () => {
  expect(quality(WHOLE)).toBe("complete");
  expect(quality(FEWER)).toBe("degraded");
  const { problems, problemCount } = manifest(FEWER);
  expect(problems).toEqual([{ node: "a", path: "", kind: "missing", message: "shard 7: 2 of 3" }]);
  expect(problemCount).toBe(1);
});

test("what is not degraded does not say so: manifests of before have the same bytes", () => {
  expect(manifest(WHOLE)).not.toHaveProperty("degraded");
  expect(manifest({ ...WHOLE, degraded: false })).not.toHaveProperty("degraded");
});

test("a backup that lacks data is incomplete, however many copies there are of the rest", () => {
  expect(quality({ ...FEWER, complete: false })).toBe("incomplete");
  expect(manifest({ ...FEWER, complete: false })).not.toHaveProperty("degraded");
});

test("a damaged file makes a backup incomplete, is counted and named; a socket does not", () => {
  const damaged = { path: "f", kind: "damaged", message: "sums differ" } as const;
  const socket = { path: "s", kind: "unsupported", message: "a socket" } as const;
  expect(quality(WHOLE, [socket])).toBe("complete");
  expect(quality(WHOLE, [damaged, socket])).toBe("incomplete");
  expect(quality(FEWER, [damaged])).toBe("incomplete");
  const { problems, problemCount } = manifest(WHOLE, share([damaged]));
  expect(problems).toEqual([{ node: "a", ...damaged }]);
  expect(problemCount).toBe(1);
});
