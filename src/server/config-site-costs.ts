/**
 * What a site of any kind may be told about lines and money: `bandwidth` and `prices`. The schemas,
 * and from them the limits and prices as src/sites means them.
 */
import { z } from "zod";
import { rateField } from "../base/fields.ts";
import type { HourlyRates, SiteLimits } from "../sites/limited-site.ts";
import type { Prices } from "../sites/prices.ts";

/** Below this a pack takes hours, and a log entry seconds. */
const RATE_BYTES_MIN = 10_000;

const HOURS_COUNT_MAX = 24;

/** `bandwidth` and `prices`: spread into every kind of site. */
export function siteCostFields() {
  return {
    bandwidth: bandwidthSchema().optional(),
    prices: pricesSchema().optional(),
  };
}

/** `bandwidth` as the file has it, its rates in bytes per second. */
export type BandwidthInput = z.output<ReturnType<typeof bandwidthSchema>>;

/** `prices` as the file has it. */
export type PricesInput = z.output<ReturnType<typeof pricesSchema>>;

/** The limits that a site is opened with. */
export function limitsOf(bandwidth: BandwidthInput): SiteLimits {
  const { upload, download, hours, requests } = bandwidth;
  return {
    ...ratesOf({ upload, download }),
    ...(hours === undefined ? {} : { hours: hours.map(hourlyOf) }),
    ...(requests === undefined ? {} : { requestsAtOnce: requests }),
  };
}

/** Prices with what was left out. */
export function pricesOf(prices: PricesInput): Prices {
  return { ...prices, deletePer1000: prices.deletePer1000 ?? 0 };
}

function hourlyOf(hours: NonNullable<BandwidthInput["hours"]>[number]): HourlyRates {
  return {
    fromMinute: minuteOf(hours.from),
    toMinute: minuteOf(hours.to),
    ...ratesOf({ upload: hours.upload, download: hours.download }),
  };
}

function ratesOf(rates: {
  readonly upload: number | undefined;
  readonly download: number | undefined;
}) {
  return {
    ...(rates.upload === undefined ? {} : { uploadBytesPerSecond: rates.upload }),
    ...(rates.download === undefined ? {} : { downloadBytesPerSecond: rates.download }),
  };
}

function bandwidthSchema() {
  return z
    .strictObject({
      upload: rate("Bytes a second that one node sends to this site, at most."),
      download: rate("Bytes a second that one node reads from this site, at most."),
      requests: z.int().min(1).max(256).optional().meta({
        description: "Requests of one node that are under way at once, at most.",
      }),
      hours: z
        .array(hoursSchema())
        .min(1)
        .max(HOURS_COUNT_MAX)
        .optional()
        .meta({
          description:
            'Other rates for parts of the day, in UTC: `{from: "08:00", to: "18:00", upload: 10MB/s}`. ' +
            "The first that holds counts, for both directions; what it leaves out is not limited then.",
        }),
    })
    .meta({ description: "Limits, for each node by itself. Nothing is limited unless told." });
}

function hoursSchema() {
  return z
    .strictObject({
      from: timeOfDay().meta({ description: "The first minute." }),
      to: timeOfDay().meta({ description: "The minute after the last; may lie after midnight." }),
      upload: rate("As above."),
      download: rate("As above."),
    })
    .refine((hours) => hours.from !== hours.to, { path: ["to"] })
    .meta({ expected: "hours with `from`, `to`, which differs, `upload` and `download`" });
}

function pricesSchema() {
  return z
    .strictObject({
      currency: z
        .string()
        .regex(/^[A-Z]{3}$/)
        .meta({ expected: "a code of three letters such as USD", description: "The currency." }),
      storagePerGBMonth: money("For keeping a GB (10⁹ bytes) for a month."),
      putPer1000: money("For 1000 PUT or LIST requests."),
      getPer1000: money("For 1000 GET or HEAD requests."),
      deletePer1000: money("For 1000 DELETE requests.").optional(),
      egressPerGB: money("For a GB that leaves the store."),
    })
    .meta({
      description:
        "Your provider's prices. With them, plans, results and `status` name amounts of money.",
    });
}

const rate = (description: string) =>
  rateField({ min: RATE_BYTES_MIN }).optional().meta({ description });

const money = (description: string) =>
  z.number().min(0).max(1_000_000).meta({ expected: "an amount of money", description });

const timeOfDay = () =>
  z
    .string()
    .regex(/^(?:[01]\d|2[0-3]):[0-5]\d$/)
    .meta({ expected: 'a time of day such as "08:00", quoted' });

function minuteOf(time: string): number {
  return Number(time.slice(0, 2)) * 60 + Number(time.slice(3));
}
