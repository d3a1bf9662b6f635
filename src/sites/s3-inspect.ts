/**
 * What a bucket is set to that matters to backups, for `site check`: the store's clock, versions,
 * locks, and rules that would remove or freeze what a repository needs. Settings that the credentials
 * may not read are warnings, since who backs up need not administrate the bucket.
 */
import type {
  GetBucketLifecycleConfigurationCommandOutput as LifecycleAnswer,
  GetBucketVersioningCommandOutput as VersioningAnswer,
  GetObjectLockConfigurationCommandOutput as LockAnswer,
  LifecycleRule,
} from "@aws-sdk/client-s3";
import { isAnswer } from "./s3-bucket.ts";
import type { S3Bucket } from "./s3-bucket.ts";
import type { SiteCall, SiteFinding, SiteLock } from "./site.ts";

/** Beyond this the ends of locks and ages of backups begin to be told wrong. */
const SKEW_MS_MAX = 60_000;

/** Where an object is not read at once any more. */
const COLD_CLASSES = new Set(["GLACIER", "DEEP_ARCHIVE"]);

type Ask<T> = { readonly answer: T } | { readonly why: "denied" | "unknown" };

/** Asks for the bucket's settings and judges them. */
export async function inspectBucket(
  bucket: S3Bucket,
  lock: SiteLock | undefined,
  options: SiteCall,
): Promise<SiteFinding[]> {
  const { sdk, client, bucket: Bucket } = bucket;
  const ask = async <T>(work: () => Promise<T>): Promise<Ask<T>> =>
    await bucket.request(undefined, options, async () => {
      try {
        return { answer: await work() };
      } catch (thrown) {
        if (isAnswer(thrown, 403)) return { why: "denied" };
        if (isAnswer(thrown, 400, 404, 405, 501)) return { why: "unknown" };
        throw thrown;
      }
    });
  const versioning = await ask(
    async () => await client.send(new sdk.GetBucketVersioningCommand({ Bucket })),
  );
  const lockRules = await ask(
    async () => await client.send(new sdk.GetObjectLockConfigurationCommand({ Bucket })),
  );
  const lifecycle = await ask(
    async () => await client.send(new sdk.GetBucketLifecycleConfigurationCommand({ Bucket })),
  );
  return [
    judgeClock(bucket.skewMs),
    judgeVersions(versioning, lock !== undefined),
    judgeLock(lockRules, lock),
    ...judgeLifecycle(lifecycle, bucket.prefix),
  ];
}

/** A clock far off is no danger to data; ages and the ends of locks are told wrong. */
function judgeClock(skewMs: number | undefined): SiteFinding {
  if (skewMs === undefined) return warning("the store does not tell its time");
  const seconds = Math.round(Math.abs(skewMs) / 1000);
  const direction = skewMs < 0 ? "ahead of" : "behind";
  if (seconds * 1000 <= SKEW_MS_MAX) return ok("this machine's clock agrees with the store's");
  return warning(
    `this machine's clock is ${seconds} s ${direction} the store's`,
    "Set it (NTP): a clock that is far off stops retention, and ages are told wrong.",
  );
}

function judgeVersions(asked: Ask<VersioningAnswer>, isLocked: boolean): SiteFinding {
  const needed = "Object lock needs versions: make the bucket with object lock.";
  if ("why" in asked) {
    return asked.why === "denied"
      ? warning("whether the bucket keeps versions may not be read (s3:GetBucketVersioning)")
      : ok("the store knows no versions");
  }
  const { Status } = asked.answer;
  if (Status === "Enabled") return ok("the bucket keeps versions; what is removed is the version");
  if (isLocked) return bad("the bucket keeps no versions, so it cannot lock", needed);
  if (Status === undefined) return ok("the bucket keeps no versions");
  return warning("versions of the bucket are suspended; what it had keeps them");
}

function judgeLock(asked: Ask<LockAnswer>, lock: SiteLock | undefined): SiteFinding {
  if ("why" in asked && asked.why === "denied") {
    return warning("object lock's settings may not be read (s3:GetBucketObjectLockConfiguration)");
  }
  const rules = "answer" in asked ? asked.answer.ObjectLockConfiguration : undefined;
  const isOn = rules?.ObjectLockEnabled === "Enabled";
  if (lock !== undefined && !isOn) {
    return bad(
      "`lock` is configured and the bucket has no object lock",
      "Make a bucket with object lock enabled; few stores can add it later.",
    );
  }
  const retention = rules?.Rule?.DefaultRetention;
  if (retention !== undefined && lock === undefined) {
    const { Mode = "", Days, Years } = retention;
    const time = Days === undefined ? `${Years ?? "?"} years` : `${Days} days`;
    return warning(
      `the bucket locks every object for ${time} (${Mode.toLowerCase()}), and \`lock\` is not set`,
      "Configure `lock`, so that what lives is renewed and cleanups know what is locked.",
    );
  }
  return ok(isOn ? "the bucket has object lock" : "the bucket has no object lock");
}

function judgeLifecycle(asked: Ask<LifecycleAnswer>, prefix: string): SiteFinding[] {
  if ("why" in asked) {
    return asked.why === "denied"
      ? [
          warning(
            "rules that remove or move objects may not be read (s3:GetLifecycleConfiguration)",
          ),
        ]
      : [ok("no rule removes or moves objects")];
  }
  const findings = (asked.answer.Rules ?? [])
    .filter((rule) => rule.Status === "Enabled" && meets(rule, prefix))
    .flatMap((rule) => judgeRule(rule));
  return findings.length === 0 ? [ok("no rule removes or moves objects")] : findings;
}

function judgeRule(rule: LifecycleRule): SiteFinding[] {
  const name = `rule ${rule.ID ?? "without a name"}`;
  const { Days, Date: date } = rule.Expiration ?? {};
  if (Days !== undefined || date !== undefined) {
    const advice = "Remove the rule: only cleanups know what backups still need.";
    return [bad(`${name} removes objects by age, log and backups included`, advice)];
  }
  const classes = (rule.Transitions ?? []).map((each) => String(each.StorageClass));
  if (classes.some((each) => COLD_CLASSES.has(each))) {
    const advice = "Remove the transition: what lies there is not read for hours.";
    return [bad(`${name} moves objects to ${classes.join(", ")}`, advice)];
  }
  if (classes.length > 0) {
    return [
      warning(`${name} moves objects to ${classes.join(", ")}; reading from there is charged`),
    ];
  }
  if (rule.NoncurrentVersionExpiration === undefined) return [];
  const advice = "A delete marker that is not noticed until then costs the object below it.";
  return [warning(`${name} removes versions that are no longer the current one`, advice)];
}

/** True if a rule's prefix meets ours. Ours have no tags, so a rule for tags does not. */
function meets(rule: LifecycleRule, prefix: string): boolean {
  const { Filter: filter } = rule;
  if (filter?.Tag !== undefined || (filter?.And?.Tags ?? []).length > 0) return false;
  const own = filter?.Prefix ?? filter?.And?.Prefix ?? rule.Prefix ?? "";
  if (own.startsWith(`${prefix}probe/`)) return false;
  return own.startsWith(prefix) || prefix.startsWith(own);
}

function ok(what: string): SiteFinding {
  return { level: "ok", what };
}

function warning(what: string, guidance?: string): SiteFinding {
  return { level: "warning", what, ...(guidance === undefined ? {} : { guidance }) };
}

function bad(what: string, guidance: string): SiteFinding {
  return { level: "bad", what, guidance };
}
