/**
 * The part of the configuration about damage: rolling verification, and repair of what is found.
 */
import { z } from "zod";
import { durationField, sizeField } from "../base/fields.ts";
import type { ScrubSettings } from "../cluster/scrub.ts";
import { nameField } from "./config-names.ts";

const DAY_MS = 24 * 3_600_000;

/** The key `scrub`. */
export const scrubSchema = z
  .strictObject({
    cycle: durationField({ min: DAY_MS }).optional().meta({
      description: "How long one reading of a whole site takes: 30d, unless `bytesPerDay` is set.",
    }),
    bytesPerDay: sizeField({ min: 1024 ** 2 })
      .optional()
      .meta({
        description:
          "How much is read of each site in a day, by all nodes together, in place of `cycle`. A new " +
          "cycle begins a day after the last one did, or later.",
      }),
    sites: z.array(nameField()).min(1).max(16).optional().meta({
      description: "The sites that are read; all, if left out.",
    }),
  })
  .optional()
  .meta({
    description:
      "Reads every pack of the sites again and again, so that damage is found before it matters: " +
      "each node its share, within a budget, never beside a backup or a restore. Left out: nothing is " +
      "read unless somebody asks for it. Reading a site in a cloud may cost money.",
  });

/** The key `repair`. */
export const repairSchema = z
  .boolean()
  .default(true)
  .meta({
    description:
      "Whether damage that a restore or scrubbing finds at one site is repaired from another: the " +
      "same object again, beside the bad one.",
  });

const CYCLE_MS_DEFAULT = 30 * DAY_MS;

/** Settings of the scrubber; undefined where it is to do nothing. */
export function resolveScrub(scrub: z.output<typeof scrubSchema>): ScrubSettings | undefined {
  if (scrub === undefined) return undefined;
  const { cycle = CYCLE_MS_DEFAULT, bytesPerDay, sites } = scrub;
  const pace = bytesPerDay === undefined ? { cycleMs: cycle } : { bytesPerDay };
  return sites === undefined ? { pace } : { pace, sites };
}
