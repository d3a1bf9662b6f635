/**
 * What one key alone cannot show: names that are used twice, nodes that could not reach each other,
 * a server that would be open to the network without a token. It looks at the values as they were
 * written, right or wrong, so that its findings are reported together with those of the schema.
 */
import { nearest } from "../base/nearest.ts";
import { Secret } from "../base/secret.ts";
import { childOf } from "./config-outline.ts";
import type { ConfigPath } from "./config-outline.ts";
import type { Finding } from "./config-problems.ts";
import { getHttpOrigin } from "./config-names.ts";

const TOKEN_LENGTH_MIN = 16;

/** All findings that span keys. */
export function checkAcross(value: unknown): Finding[] {
  return [
    ...checkNodes(value),
    ...checkSites(value),
    ...checkScrub(value),
    ...checkTokens(value),
    ...checkReach(value),
  ];
}

/** True for an address that only this machine can reach. */
export function isLoopback(host: string): boolean {
  return (
    host === "localhost" || host === "::1" || host === "[::1]" || /^127(?:\.\d+){3}$/.test(host)
  );
}

function checkNodes(value: unknown): Finding[] {
  const nodes = listOf(childOf(value, "nodes"));
  const addresses = nodes.map((node) => {
    const address = childOf(node, "address");
    return typeof address === "string" ? getHttpOrigin(address) : undefined;
  });
  const missing: Finding[] = nodes.flatMap((node, index) =>
    nodes.length === 1 || childOf(node, "address") !== undefined
      ? []
      : [{ path: ["nodes", index, "address"], text: "missing; expected http://host:port" }],
  );
  return [
    ...findRepeated(
      nodes.map((node) => childOf(node, "name")),
      "nodes",
      "name",
    ),
    ...findRepeated(addresses, "nodes", "address"),
    ...missing,
  ];
}

function checkSites(value: unknown): Finding[] {
  const sites = listOf(childOf(value, "sites"));
  const names = sites.map((site) => childOf(site, "name"));
  const findings = findRepeated(names, "sites", "name");
  findings.push(
    ...findRepeated(
      sites.map((site) => childOf(site, "path")),
      "sites",
      "path",
    ),
  );
  for (const [index, site] of sites.entries()) {
    const path = childOf(site, "path");
    if (typeof path === "string" && path.includes("{node}")) {
      findings.push({
        path: ["sites", index, "path"],
        text: "all nodes must see the same folder, so {node} cannot be a part of it",
      });
    }
    if (childOf(site, "type") === "directory" && childOf(site, "lock") !== undefined) {
      const text = "a folder cannot lock files against its owner; only buckets have `lock`";
      findings.push({ path: ["sites", index, "lock"], text });
    }
    if (childOf(site, "kmsKeyId") !== undefined && childOf(site, "sse") !== "aws:kms") {
      const text = "a key is chosen only with `sse: aws:kms`";
      findings.push({ path: ["sites", index, "kmsKeyId"], text });
    }
    const hasId = childOf(site, "accessKeyId") !== undefined;
    const hasKey = childOf(site, "secretAccessKey") !== undefined;
    if (hasId !== hasKey) {
      const lacking = hasId ? "secretAccessKey" : "accessKeyId";
      const text = "missing; `accessKeyId` and `secretAccessKey` go together";
      findings.push({ path: ["sites", index, lacking], text });
    }
  }
  const isPrimary = sites.map((site) => childOf(site, "role") === "primary");
  if (isPrimary.filter(Boolean).length > 1) {
    const path = ["sites", isPrimary.lastIndexOf(true), "role"];
    findings.push({ path, text: "one site is the primary; the rest are mirrors or archives" });
  }
  const primary = childOf(value, "primary");
  const known = names.filter((name) => typeof name === "string");
  if (typeof primary === "string" && !known.includes(primary)) {
    findings.push(unknownName(["primary"], { what: "site", name: primary, known }));
  }
  return findings;
}

function checkScrub(value: unknown): Finding[] {
  const scrub = childOf(value, "scrub");
  const findings: Finding[] = [];
  if (childOf(scrub, "cycle") !== undefined && childOf(scrub, "bytesPerDay") !== undefined) {
    const text = "`cycle` and `bytesPerDay` are two ways to say how fast: give one";
    findings.push({ path: ["scrub", "bytesPerDay"], text });
  }
  const known = listOf(childOf(value, "sites")).map((site) => String(childOf(site, "name")));
  for (const [index, name] of listOf(childOf(scrub, "sites")).entries()) {
    if (typeof name !== "string" || known.includes(name)) continue;
    findings.push(unknownName(["scrub", "sites", index], { what: "site", name, known }));
  }
  return findings;
}

/** A finding for a name that is none of those there are. */
export function unknownName(
  path: ConfigPath,
  how: { readonly what: string; readonly name: string; readonly known: readonly string[] },
): Finding {
  const { what, name, known } = how;
  const text = `there is no ${what} "${name}"; ${what}s are ${known.join(", ")}`;
  const meant = nearest(name, known);
  return meant === undefined ? { path, text } : { path, text, hint: `Did you mean "${meant}"?` };
}

function checkTokens(value: unknown): Finding[] {
  const findings: Finding[] = [];
  const seen = new Map<string, string>();
  for (const role of ["admin", "read", "node"]) {
    const token = childOf(childOf(value, "tokens"), role);
    const text = token instanceof Secret ? token.reveal() : "";
    // An empty one was reported already, with the reason.
    if (text === "") continue;
    const path = ["tokens", role];
    if (text.length < TOKEN_LENGTH_MIN || !/^[\x21-\x7e]+$/.test(text)) {
      findings.push({
        path,
        text: `expected at least ${TOKEN_LENGTH_MIN} printable ASCII characters without spaces`,
        hint: "`openssl rand -hex 32` makes a good one.",
      });
    }
    const other = seen.get(text);
    if (other !== undefined) {
      const why = "so nobody could tell what its bearer may do";
      findings.push({ path, text: `the same token as \`tokens.${other}\`, ${why}` });
    }
    seen.set(text, role);
  }
  return findings;
}

/** Who can reach the server, and whether the nodes can reach each other. */
function checkReach(value: unknown): Finding[] {
  const hasTokens = childOf(value, "tokens") !== undefined;
  const hasTls = childOf(childOf(value, "listen"), "tls") !== undefined;
  const nodes = listOf(childOf(value, "nodes"));
  const findings = checkListen(childOf(value, "listen"), ["listen"], hasTokens);
  for (const [index, node] of nodes.entries()) {
    const path = ["nodes", index, "address"];
    findings.push(...checkListen(childOf(node, "listen"), ["nodes", index, "listen"], hasTokens));
    const address = childOf(node, "address");
    const origin = typeof address === "string" ? getHttpOrigin(address) : undefined;
    if (origin === undefined) continue;
    const url = new URL(origin);
    if (!hasTokens && nodes.length > 1 && !isLoopback(url.hostname)) {
      findings.push({
        path,
        text: "without `tokens` each node listens on 127.0.0.1 only, where the others cannot reach it",
        hint: "Add `tokens: {admin: {env: ASTACUS_ADMIN_TOKEN}}`.",
      });
    }
    if (hasTls && url.protocol === "http:") {
      findings.push({ path, text: "`listen.tls` is set; expected an address with https://" });
    }
  }
  return findings;
}

function checkListen(listen: unknown, path: ConfigPath, hasTokens: boolean): Finding[] {
  const host = childOf(listen, "host");
  if (hasTokens || typeof host !== "string" || isLoopback(host)) return [];
  const text = `anybody who reaches ${host} could delete backups, as there are no \`tokens\``;
  const hint = "Add `tokens: {admin: {env: ASTACUS_ADMIN_TOKEN}}`, or listen on 127.0.0.1.";
  return [{ path: [...path, "host"], text, hint }];
}

function findRepeated(values: readonly unknown[], list: string, key: string): Finding[] {
  return values.flatMap((each, index) => {
    const first = values.indexOf(each);
    if (typeof each !== "string" || first === index) return [];
    const path = [list, index, key];
    return [{ path, text: `"${each}" is the ${key} of ${list}[${first}] already` }];
  });
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
