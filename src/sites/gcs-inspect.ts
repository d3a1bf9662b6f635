/**
 * What a bucket of Google Cloud Storage is set to that matters to backups, for `site check`: rules
 * that remove objects, retention that keeps them, a namespace that nobody has tried.
 */
import { z } from "zod";
import type { SiteFinding } from "./site.ts";

/** What is asked of a bucket. */
export const GCS_BUCKET_FIELDS =
  "lifecycle,retentionPolicy,hierarchicalNamespace,versioning,softDeletePolicy";

const bucketSchema = z.object({
  lifecycle: z
    .object({
      rule: z
        .array(
          z.object({
            action: z.object({ type: z.string(), storageClass: z.string().optional() }),
            condition: z
              .object({
                matchesPrefix: z.array(z.string()).optional(),
                isLive: z.boolean().optional(),
              })
              .optional(),
          }),
        )
        .optional(),
    })
    .optional(),
  retentionPolicy: z.object({ retentionPeriod: z.string().optional() }).optional(),
  hierarchicalNamespace: z.object({ enabled: z.boolean().optional() }).optional(),
  versioning: z.object({ enabled: z.boolean().optional() }).optional(),
});

type Rule = NonNullable<NonNullable<z.output<typeof bucketSchema>["lifecycle"]>["rule"]>[number];

/** Judges a bucket as the service describes it; `prefix` is the site's own part, with its slash. */
export function judgeGcsBucket(bucket: unknown, prefix: string): SiteFinding[] {
  const parsed = bucketSchema.safeParse(bucket);
  if (!parsed.success) return [warning("the bucket's settings are not as they are known here")];
  const { lifecycle, retentionPolicy, hierarchicalNamespace, versioning } = parsed.data;
  const rules = (lifecycle?.rule ?? []).filter((rule) => meets(rule, prefix)).flatMap(judgeRule);
  const seconds = Number(retentionPolicy?.retentionPeriod ?? 0);
  return [
    ...(rules.length > 0 ? rules : [ok("no rule removes or moves objects")]),
    ...(seconds > 0
      ? [
          warning(
            `the bucket keeps every object for ${Math.ceil(seconds / 86_400)} days: ` +
              "cleanups fail until then",
            "Let retention be longer than that, so that nothing is removed before.",
          ),
        ]
      : []),
    ...(hierarchicalNamespace?.enabled === true
      ? [warning("the bucket has a hierarchical namespace, which nobody has tried")]
      : []),
    ok(versioning?.enabled === true ? "the bucket keeps versions" : "the bucket keeps no versions"),
  ];
}

function judgeRule({ action, condition }: Rule): SiteFinding[] {
  if (action.type === "Delete") {
    // A rule for what is no longer live only ends what versions cost.
    if (condition?.isLive === false) return [];
    return [
      {
        level: "bad",
        what: "a lifecycle rule removes objects, log and backups included",
        guidance: "Remove the rule: only cleanups know what backups still need.",
      },
    ];
  }
  if (action.type !== "SetStorageClass") return [];
  return [
    warning(
      `a lifecycle rule moves objects to ${action.storageClass ?? "another class"}; ` +
        "reading from there is charged",
    ),
  ];
}

/** True if a rule's prefixes meet ours. */
function meets({ condition }: Rule, prefix: string): boolean {
  const own = condition?.matchesPrefix ?? [""];
  return own.some((each) => each.startsWith(prefix) || prefix.startsWith(each));
}

function ok(what: string): SiteFinding {
  return { level: "ok", what };
}

function warning(what: string, guidance?: string): SiteFinding {
  return { level: "warning", what, ...(guidance === undefined ? {} : { guidance }) };
}
