/**
 * What requests, bytes and space cost: counters in, money out. Prices are the operator's own figures
 * from his provider's list; nothing is known here of any provider. Stores charge a HEAD as a GET and
 * a LIST as a PUT, in pages of a thousand keys, and so does this. A GB is 10⁹ bytes.
 */
import type { RequestKind } from "./memory-site.ts";

/** One site's prices, in units of `currency`. */
export type Prices = {
  readonly currency: string;
  /** For keeping 10⁹ bytes for a month. */
  readonly storagePerGBMonth: number;
  /** For a thousand PUT or LIST requests. */
  readonly putPer1000: number;
  /** For a thousand GET or HEAD requests. */
  readonly getPer1000: number;
  /** For a thousand DELETE requests; most providers ask nothing. */
  readonly deletePer1000: number;
  /** For 10⁹ bytes that leave the store. */
  readonly egressPerGB: number;
};

/** What passed to a site: requests by kind, and bytes of objects in both directions. */
export type Usage = {
  readonly requests: Readonly<Record<RequestKind, number>>;
  readonly bytesRead: number;
  readonly bytesWritten: number;
};

/** An amount of money, in units (not cents) of a currency. */
export type Money = { readonly amount: number; readonly currency: string };

const GB = 1e9;

/** Nothing at all. */
export const NO_USAGE: Usage = {
  requests: { get: 0, put: 0, head: 0, delete: 0, list: 0 },
  bytesRead: 0,
  bytesWritten: 0,
};

/** The counters of now, as a value that stays. */
export function usageOf(counters: Usage): Usage {
  const { requests, bytesRead, bytesWritten } = counters;
  return { requests: { ...requests }, bytesRead, bytesWritten };
}

/** What was used between two looks at the same counters. */
export function usageBetween(before: Usage, after: Usage): Usage {
  return combine(after, before, (one, other) => one - other);
}

/** What was used in both. */
export function addUsage(one: Usage, other: Usage): Usage {
  return combine(one, other, (a, b) => a + b);
}

/** What requests and outgoing bytes cost; storage is `storagePrice`. */
export function priceOf(prices: Prices, usage: Usage): Money {
  const { put, list, get, head, delete: removed } = usage.requests;
  const amount =
    ((put + list) / 1000) * prices.putPer1000 +
    ((get + head) / 1000) * prices.getPer1000 +
    (removed / 1000) * prices.deletePer1000 +
    (usage.bytesRead / GB) * prices.egressPerGB;
  return { amount, currency: prices.currency };
}

/** What keeping so many bytes costs a month. */
export function storagePrice(prices: Prices, bytes: number): Money {
  return { amount: (bytes / GB) * prices.storagePerGBMonth, currency: prices.currency };
}

/** `12.34 USD`; what is less than a cent says so, and is never rounded to nothing. */
export function formatMoney({ amount, currency }: Money): string {
  if (amount > 0 && amount < 0.01) return `less than 0.01 ${currency}`;
  return `${amount.toFixed(2)} ${currency}`;
}

/** `12 put, 3 get`: what was asked at all, the dearest kind first. */
export function formatRequests(requests: Usage["requests"]): string {
  const kinds = ["put", "list", "get", "head", "delete"] as const;
  const shown = kinds.filter((kind) => requests[kind] > 0);
  if (shown.length === 0) return "no requests";
  return shown.map((kind) => `${requests[kind]} ${kind}`).join(", ");
}

function combine(one: Usage, other: Usage, fold: (a: number, b: number) => number): Usage {
  const of = (kind: RequestKind): number => fold(one.requests[kind], other.requests[kind]);
  return {
    requests: {
      get: of("get"),
      put: of("put"),
      head: of("head"),
      delete: of("delete"),
      list: of("list"),
    },
    bytesRead: fold(one.bytesRead, other.bytesRead),
    bytesWritten: fold(one.bytesWritten, other.bytesWritten),
  };
}
