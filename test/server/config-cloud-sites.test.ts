/** Sites of type `azure` and `gcs`: what a file may say, and what comes of it. */
import { describe, expect, test } from "bun:test";
import { getBlobEndpoint } from "../../src/server/config-cloud-sites.ts";
import { parseSharedConfig } from "../../src/server/config.ts";

function siteOf(keys: string) {
  return parseSharedConfig({
    text: `cluster: c\nproduct: {type: files, root: /srv/data}\nsites:\n  - {name: far, ${keys}}\n`,
    fileName: "/etc/astacus/astacus.conf",
    environment: { THE_SECRET: "secret-of-tests" },
    readFile: () => "",
    hostName: "a",
  }).sites[0];
}

describe("a site in Azure", () => {
  test("is a container, an account and one of three kinds of credentials", () => {
    const site = siteOf(
      "type: azure, container: backups, account: example, accountKey: {env: THE_SECRET}, " +
        "accessTier: Cool, caFile: ca.pem, requestTimeout: 90s",
    );
    expect(site).toMatchObject({
      type: "azure",
      container: "backups",
      account: "example",
      accessTier: "Cool",
      caFile: "/etc/astacus/ca.pem",
      requestTimeoutMs: 90_000,
      concurrency: 8,
    });
    expect(Bun.inspect(site)).not.toContain("secret-of-tests");
    expect(JSON.stringify(site)).not.toContain("secret-of-tests");
  });

  test.each([
    ["type: azure, container: Backups", "container"],
    ["type: azure, container: back--ups", "container"],
    ["type: azure, container: backups, accessTier: Archive", "accessTier"],
    ["type: azure, container: backups, bucket: b", "bucket"],
    ["type: azure, container: backups, endpoint: https://h/a/b", "endpoint"],
  ])("%s is refused", (keys, said) => {
    expect(() => siteOf(keys)).toThrow(said);
  });

  test("has an address with at most the account as its path", () => {
    expect(getBlobEndpoint("https://a.blob.core.windows.net/")).toBe(
      "https://a.blob.core.windows.net",
    );
    expect(getBlobEndpoint("http://127.0.0.1:10000/devstoreaccount1")).toBe(
      "http://127.0.0.1:10000/devstoreaccount1",
    );
    for (const wrong of ["ftp://a/b", "https://a/b/c", "https://a/?sig=1", "https://u:p@a", "a"]) {
      expect(getBlobEndpoint(wrong)).toBeUndefined();
    }
  });
});

describe("a site in Google Cloud Storage", () => {
  test("is a bucket and the file of its credentials", () => {
    const site = siteOf(
      "type: gcs, bucket: backups, credentialsFile: key.json, storageClass: NEARLINE",
    );
    expect(site).toMatchObject({
      type: "gcs",
      bucket: "backups",
      credentialsFile: "/etc/astacus/key.json",
      storageClass: "NEARLINE",
      anonymous: false,
    });
  });

  test("hides credentials that are given as text", () => {
    const site = siteOf("type: gcs, bucket: backups, credentials: {env: THE_SECRET}");
    expect(Bun.inspect(site)).not.toContain("secret-of-tests");
  });

  test.each([
    ["type: gcs, bucket: B", "bucket"],
    ["type: gcs, bucket: backups, storageClass: COOL", "storageClass"],
    ["type: gcs, bucket: backups, accountKey: x", "accountKey"],
  ])("%s is refused", (keys, said) => {
    expect(() => siteOf(keys)).toThrow(said);
  });
});
