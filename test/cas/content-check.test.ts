/** Content checks: they see what is stored, once, in order, and what they find comes back. */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { realFileSystem } from "../../src/base/file-system.ts";
import { sha256Hex } from "../../src/base/hex.ts";
import type { CheckSource } from "../../src/cas/write/content-check.ts";
import type { Problem } from "../../src/cas/write/volume-source.ts";
import { checkSource } from "../../src/products/content-checks.ts";
import { combineAdler32 } from "../../src/products/m3/adler32.ts";
import { Rig, RiggedFiles } from "./backup-rig.ts";
import type { RigOptions } from "./backup-rig.ts";
import { noise } from "./noise.ts";
import { sampleChecks } from "./sample-checks.ts";

type Findings = Map<string, unknown>;

/** A backup whose files all have one check; what was found by path, each path once. */
async function backup(
  rig: Rig,
  check: string,
  options: RigOptions & { readonly contentChecks?: CheckSource } = {},
): Promise<Findings> {
  const found: Findings = new Map();
  await rig.backup({
    contentChecks: sampleChecks,
    ...options,
    volume: {
      check: () => check,
      checked: (path, finding) => {
        expect(found.has(path)).toBe(false);
        found.set(path, finding);
      },
      ...options.volume,
    },
  });
  return found;
}

async function failureOf(promise: Promise<unknown>): Promise<AppError> {
  const error = await promise.then(
    () => new Error("nothing failed"),
    (thrown: unknown) => thrown,
  );
  if (error instanceof AppError) return error;
  throw error;
}

function whole(bytes: Uint8Array): object {
  return { offset: 0, verifiedBytes: 0, sha256: sha256Hex(bytes) };
}

describe.each([0, 2])("with %p workers", (workers) => {
  test("a check sees each file's bytes in order, whatever the batches", async () => {
    await using rig = await Rig.open();
    const sizes = [0, 1, 70_000, 600_000, 600_001, 3_000_000];
    for (const size of sizes) rig.write(`f${size}`, noise(size, size + 1));
    const found = await backup(rig, "seen", { settings: { workers } });
    expect(found.size).toBe(sizes.length);
    for (const size of sizes) expect(found.get(`f${size}`)).toEqual(whole(noise(size, size + 1)));
  });

  test.each(["fails-to-begin", "fails-on-bytes", "fails-to-finish", "unheard-of"])(
    "a check that %s ends the backup with its name, and nothing hangs",
    async (check) => {
      await using rig = await Rig.open();
      rig.write("a", noise(1_000_000, 1));
      const failure = await failureOf(backup(rig, check, { settings: { workers } }));
      expect(failure.kind).toBe("internal");
      expect(failure.message).toContain(check);
    },
  );
});

test("a module of checks that cannot be loaded ends the backup", async () => {
  await using rig = await Rig.open();
  rig.write("a", "text");
  const contentChecks = { ...sampleChecks, module: `${sampleChecks.module}.gone` };
  const failed = backup(rig, "seen", { settings: { workers: 1 }, contentChecks });
  expect((await failureOf(failed)).kind).toBe("internal");
});

test("a file that is taken from its stat has no finding, one that changed has", async () => {
  await using rig = await Rig.open();
  rig.write("same", "same");
  rig.write("other", "before");
  expect((await backup(rig, "seen")).size).toBe(2);
  rig.write("other", "after", 50);
  const found = await backup(rig, "seen");
  expect([...found]).toEqual([["other", whole(Buffer.from("after"))]]);
});

test("of a grown log the check is told what was verified, and sees the rest", async () => {
  await using rig = await Rig.open();
  const nature = () => "append-only" as const;
  const before = noise(500_000, 1);
  const added = noise(200_000, 2);
  rig.write("log", before);
  await backup(rig, "seen", { volume: { nature } });
  rig.append("log", added);
  const found = await backup(rig, "seen", { volume: { nature } });
  const finding = found.get("log") as { offset: number; verifiedBytes: number; sha256: string };
  expect(finding.verifiedBytes).toBe(before.length);
  expect(finding.offset).toBeGreaterThan(0);
  expect(finding.offset).toBeLessThanOrEqual(before.length);
  const rest = Buffer.concat([before, added]).subarray(finding.offset);
  expect(finding.sha256).toBe(sha256Hex(rest));
});

test("a log whose start was rewritten is verified from its start", async () => {
  await using rig = await Rig.open();
  const nature = () => "append-only" as const;
  rig.write("log", noise(500_000, 1));
  await backup(rig, "seen", { volume: { nature } });
  rig.write("log", noise(700_000, 3), 50);
  const found = await backup(rig, "seen", { volume: { nature } });
  expect(found.get("log")).toEqual(whole(noise(700_000, 3)));
});

test("a file that changed while it was read has the finding of the read that counts", async () => {
  await using rig = await Rig.open();
  rig.write("f", noise(100_000, 1));
  let reads = 0;
  const files = new RiggedFiles({
    read: (handle, target, position) => {
      if (position === 0) reads += 1;
      const count = realFileSystem.read(handle, target, position);
      if (reads === 1) rig.write("f", noise(100_000, 2), 50);
      return count;
    },
  });
  const found = await backup(rig, "seen", { files: files.door });
  expect(reads).toBe(2);
  expect(found.get("f")).toEqual(whole(noise(100_000, 2)));
});

test("a volume is asked for its problems when all of its files were checked", async () => {
  await using rig = await Rig.open();
  for (let index = 0; index < 300; index++) rig.write(`f${index}`, noise(20_000, index));
  let checkedCount = 0;
  const askedAt: number[] = [];
  await backup(rig, "seen", {
    settings: { workers: 2 },
    volume: {
      checked: () => (checkedCount += 1),
      problems: () => {
        askedAt.push(checkedCount);
        return [];
      },
    },
  });
  expect(askedAt).toEqual([300]);
});

test("a file that was named damaged is read again by the next backup, and stored as it is", async () => {
  await using rig = await Rig.open();
  rig.write("bad", "damaged bytes");
  rig.write("good", "good bytes");
  const problems = (): Problem[] => [{ path: "bad", kind: "damaged", message: "sums differ" }];
  const first = await rig.backup({ volume: { problems } });
  expect(first.stored.problemCount).toBe(1);
  const read = await rig.read(first.stored.volumes[0]!.listing);
  expect(read.get("bad")?.bytes?.toString()).toBe("damaged bytes");
  const found = await backup(rig, "seen");
  expect([...found.keys()]).toEqual(["bad"]);
});

test("Adler-32 of a file is that of its bytes, in one piece or in many", async () => {
  await using rig = await Rig.open();
  const sizes = [0, 1, 65_520, 65_521, 65_522, 2_000_000];
  for (const size of sizes) rig.write(`f${size}`, noise(size, 7));
  const found = await backup(rig, "adler32", { contentChecks: checkSource });
  for (const size of sizes) expect(found.get(`f${size}`)).toBe(Bun.hash.adler32(noise(size, 7)));
});

test("sums of pieces are the sum of the whole, wherever it is cut", () => {
  const bytes = noise(200_000, 9).fill(0xff, 0, 140_000);
  const sum = Bun.hash.adler32(bytes);
  for (const cut of [0, 1, 65_520, 65_521, 131_042, 131_043, 199_999, 200_000]) {
    const [head, tail] = [bytes.subarray(0, cut), bytes.subarray(cut)];
    const combined = combineAdler32(Bun.hash.adler32(head), Bun.hash.adler32(tail), tail.length);
    expect(combined).toBe(sum);
  }
});
