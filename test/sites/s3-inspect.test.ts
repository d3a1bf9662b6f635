/**
 * What `site check` makes of a bucket's settings, against a stub: servers for tests have few of them.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { openS3Site } from "../../src/sites/s3-site.ts";
import type { Site, SiteFinding } from "../../src/sites/site.ts";
import { thrownBy } from "./contract.ts";

type Settings = {
  readonly versioning?: string | number;
  readonly lock?: string | number;
  readonly lifecycle?: string | number;
  /** How far the store's clock is ahead. */
  readonly aheadMs?: number;
};

let settings: Settings = {};
const stub = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: ({ url }) => {
    const { searchParams } = new URL(url);
    const name = searchParams.has("versioning")
      ? "versioning"
      : searchParams.has("object-lock")
        ? "lock"
        : "lifecycle";
    const answer = settings[name] ?? 404;
    const date = new Date(Date.now() + (settings.aheadMs ?? 0)).toUTCString();
    const headers = { date, "content-type": "application/xml" };
    if (typeof answer === "string") return new Response(answer, { headers });
    const body = `<Error><Code>${answer === 403 ? "AccessDenied" : "NoSuch"}</Code></Error>`;
    return new Response(body, { status: answer, headers });
  },
});
afterAll(async () => await stub.stop(true));

async function findings(now: Settings, isLocked = false): Promise<readonly SiteFinding[]> {
  settings = now;
  await using site = await open(isLocked);
  return (await site.inspect?.()) ?? [];
}

async function open(isLocked: boolean): Promise<Site> {
  return await openS3Site({
    name: "stub",
    bucket: "bucket",
    prefix: "ours",
    endpoint: stub.url.origin,
    forcePathStyle: true,
    accessKeyId: "id",
    secretAccessKey: "secret",
    ...(isLocked ? { lock: { mode: "governance", periodMs: 86_400_000 } } : {}),
  });
}

const VERSIONED = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
const LOCKED =
  "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
const LOCKED_BY_DEFAULT = LOCKED.replace(
  "</ObjectLockConfiguration>",
  "<Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>90</Days></DefaultRetention></Rule>$&",
);

/** A lifecycle with one rule. */
function rule(what: string, filter = "<Filter><Prefix></Prefix></Filter>"): string {
  const inside = `<ID>one</ID><Status>Enabled</Status>${filter}${what}`;
  return `<LifecycleConfiguration><Rule>${inside}</Rule></LifecycleConfiguration>`;
}

const EXPIRES = "<Expiration><Days>30</Days></Expiration>";

function moves(storageClass: string): string {
  return `<Transition><Days>3</Days><StorageClass>${storageClass}</StorageClass></Transition>`;
}

describe("a bucket", () => {
  test("without any settings is sound", async () => {
    const found = await findings({});
    expect(found.filter(({ level }) => level !== "ok")).toEqual([]);
    expect(found.length).toBeGreaterThan(2);
  });

  test("with versions and locks is sound where `lock` is set", async () => {
    const found = await findings({ versioning: VERSIONED, lock: LOCKED }, true);
    expect(found.filter(({ level }) => level !== "ok")).toEqual([]);
  });

  test.each<[string, Settings, boolean, SiteFinding["level"], RegExp]>([
    ["without object lock, where `lock` is set", {}, true, "bad", /no object lock/],
    [
      "without versions, where `lock` is set",
      { lock: LOCKED, versioning: "<a/>" },
      true,
      "bad",
      /no versions/,
    ],
    [
      "that locks, where `lock` is not set",
      { lock: LOCKED_BY_DEFAULT },
      false,
      "warning",
      /90 days/,
    ],
    ["whose settings are hidden", { lifecycle: 403 }, false, "warning", /may not be read/],
    ["whose versions are hidden", { versioning: 403 }, false, "warning", /may not be read/],
    ["whose locks are hidden", { lock: 403 }, false, "warning", /may not be read/],
    ["with a rule that removes", { lifecycle: rule(EXPIRES) }, false, "bad", /rule one removes/],
    [
      "with a rule for ours",
      { lifecycle: rule(EXPIRES, "<Prefix>ours/log/</Prefix>") },
      false,
      "bad",
      /removes/,
    ],
    [
      "with a rule that freezes",
      { lifecycle: rule(moves("DEEP_ARCHIVE")) },
      false,
      "bad",
      /DEEP_ARCHIVE/,
    ],
    [
      "with a rule that moves",
      { lifecycle: rule(moves("STANDARD_IA")) },
      false,
      "warning",
      /STANDARD_IA/,
    ],
    ["in a store ahead of us", { aheadMs: 3_600_000 }, false, "warning", /3(600|599|601) s behind/],
    ["in a store behind us", { aheadMs: -120_000 }, false, "warning", /1(20|19|21) s ahead/],
  ])("%s is noticed", async (_, now, isLocked, level, what) => {
    const found = (await findings(now, isLocked)).filter((one) => one.level !== "ok");
    expect(found.map((one) => one.level)).toContain(level);
    expect(found.find((one) => one.level === level)?.what).toMatch(what);
  });

  test.each([
    ["others' objects", rule(EXPIRES, "<Filter><Prefix>theirs/</Prefix></Filter>")],
    ["others' objects, in its old form", rule(EXPIRES, "<Prefix>theirs/</Prefix>")],
    ["our probes", rule(EXPIRES, "<Filter><Prefix>ours/probe/</Prefix></Filter>")],
    ["tagged objects", rule(EXPIRES, "<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>")],
    ["nothing, since it is off", rule(EXPIRES).replace("Enabled", "Disabled")],
    [
      "unfinished uploads",
      rule(
        "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>",
      ),
    ],
  ])("may have a rule for %s", async (_, lifecycle) => {
    const found = await findings({ lifecycle });
    expect(found.filter(({ level }) => level !== "ok")).toEqual([]);
  });

  test("that cannot be asked is an error, and no finding", async () => {
    settings = { versioning: 500 };
    await using site = await open(false);
    expect(await thrownBy(site.inspect!())).toBeInstanceOf(AppError);
  });
});
