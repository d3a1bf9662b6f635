/** The configuration of plain etcd: paths, secrets and what is said of mistakes. */
import { expect, test } from "bun:test";
import { parseConfig } from "../../../src/server/config.ts";

const ETCD = `endpoints: ["https://etcd1:2379/", "https://etcd2:2379"]`;

function parse(product: string) {
  return parseConfig({
    text: `cluster: test\nproduct:\n  type: etcd\n${product}\nsites: [{name: s, type: directory, path: /s}]\n`,
    fileName: "/etc/astacus.conf",
    nodeName: "n1",
    environment: { ETCD_PASSWORD: "sesame" },
    readFile: () => "",
    hostName: "n1",
  });
}

test("a full section is read, with its paths and secrets resolved", () => {
  const { product } = parse(
    `  root: dumps/{node}\n  prefixes: [app/, single]\n  etcd:\n    ${ETCD}\n` +
      "    tls: {ca: ca.pem, certificate: '{node}.pem', key: '/keys/{node}.key'}\n" +
      "    user: {name: root, password: {env: ETCD_PASSWORD}}\n    requestTimeout: 3s",
  ).self;
  expect(product).toMatchObject({
    type: "etcd",
    root: "/etc/dumps/n1",
    prefixes: ["app/", "single"],
    extra: "refuse",
    snapshotTimeout: 3_600_000,
    etcd: {
      endpoints: ["https://etcd1:2379", "https://etcd2:2379"],
      tls: { ca: "/etc/ca.pem", certificate: "/etc/n1.pem", key: "/keys/n1.key" },
      requestTimeoutMs: 3_000,
    },
  });
  if (product.type !== "etcd") throw new Error("another product");
  expect(product.etcd.user?.password.reveal()).toBe("sesame");
  expect(Bun.inspect(product)).not.toContain("sesame");
});

test("mistakes are named with what is expected", () => {
  const told = (product: string, words: string) => {
    expect(() => parse(product)).toThrow(words);
  };
  told("  root: /r\n  etcd: {endpoints: [etcd1]}", "http://host:2379 or https://host:2379");
  told("  root: /r\n  etcd: {endpoints: []}", "etcd.endpoints");
  told(`  root: /r\n  etcd: {${ETCD}, tls: {key: k}}`, "`certificate` and `key` together");
  told(`  root: /r\n  etcd: {${ETCD}}\n  prefixes: []`, "product.prefixes");
  told(`  root: /r\n  etcd: {${ETCD}, users: x}`, "user");
});
