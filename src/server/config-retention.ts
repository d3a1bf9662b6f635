/**
 * The rules of retention as keys of the configuration: those of all sites, and those of one. From
 * them the policy as src/cas/clean means it.
 */
import { z } from "zod";
import { durationField } from "../base/fields.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";

const count = (min: number, max: number) => z.int().min(min).max(max);

/** The rules: spread into a section. */
export function retentionRules() {
  return {
    minimum: count(1, 100_000)
      .default(3)
      .meta({
        description:
          "At least this many complete backups are kept, whatever the rest says " +
          "(the original's `minimum_backups`).",
      }),
    maximum: count(1, 100_000)
      .optional()
      .meta({
        description:
          "At most this many complete backups are kept, pinned ones not counted " +
          "(the original's `maximum_backups`).",
      }),
    keepDays: count(0, 36_500)
      .optional()
      .meta({
        description:
          "Keeps backups up to this many whole days older than the newest (the original's " +
          "`keep_days`). 7 if this section has no other rule that keeps.",
      }),
    keepLast: count(1, 100_000).optional().meta({ description: "Keeps the last so many." }),
    keepWithin: durationField().optional().meta({
      description: "Keeps those that are at most so much older than the newest.",
    }),
    hourly: count(0, 100_000).optional().meta({
      description: "Keeps the newest of each of the last so many hours that have one (UTC).",
    }),
    daily: count(0, 36_500).optional().meta({ description: "The same for days." }),
    weekly: count(0, 5_200).optional().meta({ description: "The same for weeks, from Monday." }),
    monthly: count(0, 1_200).optional().meta({ description: "The same for months." }),
    yearly: count(0, 100).optional().meta({ description: "The same for years." }),
  };
}

const policySchema = z.strictObject(retentionRules());

/** The policy of rules that were read. */
export function policyOf(rules: z.output<typeof policySchema>): RetentionPolicy {
  const { keepWithin, ...rest } = rules;
  const policy = { ...rest, keepWithinMs: keepWithin };
  const given = Object.entries(policy).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given);
}

/** `role` and `retention`: spread into every kind of site. */
export function siteRoleFields() {
  return {
    role: z
      .enum(["primary", "mirror", "archive"])
      .optional()
      .meta({
        description:
          "What the site is as long as the repository does not say: where operations start, a copy, " +
          "or one that is only read. The first site is the primary and the rest are mirrors, if left " +
          "out. Later `astacus migrate` and `astacus site promote` decide, not this key.",
      }),
    retention: policySchema.optional().meta({
      description:
        "What this site keeps, in place of the top-level `retention`. Only backups that it keeps are " +
        "copied to it.",
    }),
  };
}
