/**
 * What a bucket may be told about how it keeps objects: `lock`, `sse` and `kmsKeyId`, `storageClass`,
 * and the weaker mode for stores that cannot create only where nothing is.
 */
import { z } from "zod";
import { durationField } from "../base/fields.ts";
import { DAY_MS } from "../base/units.ts";
import type { S3SiteOptions } from "../sites/s3-options.ts";

/** Below an hour renewals would never end; beyond a year a slip is paid for too long. */
const PERIOD_MS_MIN = DAY_MS / 24;
const PERIOD_MS_MAX = 366 * DAY_MS;

/** Classes whose objects cannot be read at once: a restore would wait for hours. */
const COLD_CLASSES = new Set(["GLACIER", "DEEP_ARCHIVE"]);

/** Spread into the settings of a bucket. */
export function bucketFields() {
  return {
    lock: lockSchema().optional(),
    sse: z
      .enum(["AES256", "aws:kms"])
      .optional()
      .meta({
        description:
          "Has the store encrypt what it keeps, with its own key (AES256) or with one of its key " +
          "service. Left out, the bucket's default holds.",
      }),
    kmsKeyId: z.string().min(1).optional().meta({
      expected: "the name of a key",
      description: "With sse: aws:kms, which key; the bucket's default if left out.",
    }),
    storageClass: storageClassSchema().optional(),
    unsafeCreate: z
      .literal("single-writer")
      .optional()
      .meta({
        description:
          "For a store that ignores If-None-Match, which is refused otherwise: asks first, then " +
          "writes. Two servers or commands that write at once can then lose backups; that there " +
          "never are two is up to you.",
      }),
  };
}

function lockSchema() {
  return z
    .strictObject({
      mode: z.enum(["governance", "compliance"]).meta({
        description:
          "Whether somebody with a special right may remove objects all the same (governance) or " +
          "nobody at all, not even the provider's customer (compliance).",
      }),
      period: durationField({ min: PERIOD_MS_MIN, max: PERIOD_MS_MAX })
        .prefault("30d")
        .meta({
          description:
            "Locks end with the period after next, so after two to three periods; a cleanup renews " +
            "what lives once a period.",
        }),
    })
    .meta({
      description:
        "Locks all that is written, with S3 Object Lock. The bucket must have been made with it.",
    });
}

function storageClassSchema() {
  const name = () =>
    z
      .string()
      .regex(/^[A-Z0-9_]+$/)
      .refine((text) => !COLD_CLASSES.has(text), "what lies there is not read for hours")
      .optional();
  const expected = "a class that is read at once: STANDARD, STANDARD_IA, GLACIER_IR …";
  return z
    .strictObject({
      data: name().meta({
        expected,
        description: "Of packs, under pack/: the data, and small packs of listings beside it.",
      }),
      metadata: name().meta({
        expected,
        description:
          "Of all else: log, checkpoints, index, manifests, keys. Read by every command.",
      }),
    })
    .meta({
      description:
        "Storage classes for new objects; the store's default where left out. Classes with a " +
        "minimum time charge for it when a cleanup removes sooner.",
    });
}

/** `lock` as the file has it. */
export type LockInput = z.output<ReturnType<typeof lockSchema>>;

/** The lock that a bucket is opened with. */
export function lockOf({ mode, period }: LockInput): NonNullable<S3SiteOptions["lock"]> {
  return { mode, periodMs: period };
}
