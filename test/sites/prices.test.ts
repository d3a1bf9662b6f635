/** Money for what a site was asked. */
import { describe, expect, test } from "bun:test";
import { countRequests } from "../../src/sites/counting-site.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";
import {
  addUsage,
  formatMoney,
  formatRequests,
  NO_USAGE,
  priceOf,
  storagePrice,
  usageBetween,
  usageOf,
} from "../../src/sites/prices.ts";

const PRICES = {
  currency: "EUR",
  storagePerGBMonth: 0.02,
  putPer1000: 5,
  getPer1000: 0.4,
  deletePer1000: 0,
  egressPerGB: 0.09,
};

describe("prices", () => {
  test("charge a listing as a put, a head as a get, and bytes that leave", () => {
    const requests = { put: 500, list: 500, get: 400, head: 600, delete: 10_000 };
    const usage = { requests, bytesRead: 2e9, bytesWritten: 9e9 };
    const { amount, currency } = priceOf(PRICES, usage);
    expect(amount).toBeCloseTo(5 + 0.4 + 0.18, 9);
    expect(currency).toBe("EUR");
  });

  test("charge nothing for nothing", () => {
    expect(priceOf(PRICES, NO_USAGE).amount).toBe(0);
  });

  test("charge space by the month", () => {
    expect(storagePrice(PRICES, 5e12).amount).toBeCloseTo(100, 9);
  });

  test("are never rounded to nothing", () => {
    const texts = [0, 0.001, 0.01, 1.005, 1234.5].map((amount) =>
      formatMoney({ amount, currency: "EUR" }),
    );
    expect(texts).toEqual([
      "0.00 EUR",
      "less than 0.01 EUR",
      "0.01 EUR",
      "1.00 EUR",
      "1234.50 EUR",
    ]);
  });
});

describe("usage", () => {
  test("is what was asked between two looks", async () => {
    const site = countRequests(new MemorySite());
    await site.put("a", new Uint8Array(10));
    const before = usageOf(site);
    await site.put("b", new Uint8Array(20));
    await site.get("b");
    const used = usageBetween(before, usageOf(site));
    expect(used).toEqual({
      requests: { put: 1, get: 1, head: 0, delete: 0, list: 0 },
      bytesRead: 20,
      bytesWritten: 20,
    });
    expect(addUsage(used, before)).toEqual(usageOf(site));
    expect(formatRequests(used.requests)).toBe("1 put, 1 get");
    expect(formatRequests(NO_USAGE.requests)).toBe("no requests");
  });
});
