/** `bandwidth` and `prices` of a site: what a file may say, and what comes of it. */
import { describe, expect, test } from "bun:test";
import { parseSharedConfig } from "../../src/server/config.ts";

const PRICES = "currency: EUR, storagePerGBMonth: 0.02, putPer1000: 0.005, getPer1000: 0.0004";

function siteOf(keys: string) {
  const text = `cluster: c
product: {type: files, root: /srv/data}
sites:
  - name: far
    type: s3
    bucket: backups
    ${keys}
`;
  return parseSharedConfig({
    text,
    fileName: "/etc/astacus.conf",
    environment: {},
    readFile: () => "",
    hostName: "a",
  }).sites[0];
}

describe("a site's bandwidth", () => {
  test("is rates in both directions, and others by the hour", () => {
    const hours = `{from: "08:00", to: "18:30", upload: 1MB/s}`;
    const site = siteOf(
      `bandwidth: {upload: 50MB/s, download: 100 MiB/s, requests: 4, hours: [${hours}]}`,
    );
    expect(site.limits).toEqual({
      uploadBytesPerSecond: 50_000_000,
      downloadBytesPerSecond: 100 * 1024 ** 2,
      requestsAtOnce: 4,
      hours: [{ fromMinute: 480, toMinute: 1110, uploadBytesPerSecond: 1_000_000 }],
    });
  });

  test.each([
    ["{upload: 50MB}", "50MB/s"],
    ["{upload: 1kB/s}", "at least"],
    [`{hours: [{from: "8:00", to: "18:00"}]}`, "time of day"],
    [`{hours: [{from: "08:00", to: "08:00"}]}`, "to"],
    ["{uplod: 50MB/s}", "upload"],
  ])("%s is refused", (bandwidth, said) => {
    expect(() => siteOf(`bandwidth: ${bandwidth}`)).toThrow(said);
  });
});

describe("a site's prices", () => {
  test("are figures of one currency; to remove is free unless told", () => {
    expect(siteOf(`prices: {${PRICES}, egressPerGB: 0.09}`).prices).toEqual({
      currency: "EUR",
      storagePerGBMonth: 0.02,
      putPer1000: 0.005,
      getPer1000: 0.0004,
      deletePer1000: 0,
      egressPerGB: 0.09,
    });
  });

  test("are all needed", () => {
    expect(() => siteOf(`prices: {${PRICES}}`)).toThrow("egressPerGB");
    expect(() => siteOf(`prices: {${PRICES}, egressPerGB: -1}`)).toThrow("money");
  });
});
