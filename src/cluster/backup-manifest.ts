/**
 * From what the nodes stored to the manifest of the backup: totals, problems, and the verdict on
 * whether it is complete. Complete is what the product judges by its database's own list of members,
 * if in addition every file of every share could be read. A complete one may be degraded: all data is
 * there, and fewer copies of it than there should be.
 */
import { FORMAT_VERSION } from "../cas/format/header.ts";
import { textFromPath } from "../base/path.ts";
import type { Manifest } from "../cas/format/manifest.ts";
import { MANIFEST_PROBLEM_COUNT_MAX } from "../cas/format/manifest.ts";
import type { Completeness } from "../products/product.ts";
import type { NodeStoredAnswer } from "./protocol.ts";

/** What is known of a backup before it is committed. */
export type BackupFacts = {
  readonly id: string;
  readonly name: string;
  readonly cluster: string;
  readonly product: string;
  readonly started: string;
  readonly ended: string;
  readonly state: Manifest["state"];
  /** Who coordinates, and so speaks for what no node reported. */
  readonly coordinator: string;
  readonly zones: ReadonlyMap<string, string>;
  readonly versions: ReadonlyMap<string, string>;
  readonly stored: ReadonlyMap<string, NodeStoredAnswer>;
  readonly judged: Completeness;
  /** Nodes that did not answer, with the reason. */
  readonly missing: ReadonlyMap<string, string>;
};

/** The manifest of a backup. */
export function manifestOf(facts: BackupFacts): Manifest {
  const { stored, judged, coordinator } = facts;
  const shares = [...stored.values()];
  const missing = [...facts.missing].map(([node, why]) => ({
    node,
    path: "",
    kind: "missing" as const,
    message: `The node did not answer: ${why}`,
  }));
  const ofCluster = judged.problems.map((message) => ({
    node: coordinator,
    path: "",
    kind: "missing" as const,
    message,
  }));
  const ofNodes = [...stored].flatMap(([node, share]) =>
    share.problems.map((problem) => ({ node, ...problem, path: textFromPath(problem.path) })),
  );
  const counted = shares.reduce((sum, share) => sum + share.problemCount, 0);
  const complete = judged.complete && shares.every(isWhole);
  return {
    v: FORMAT_VERSION,
    backup: facts.id,
    name: facts.name,
    cluster: facts.cluster,
    product: facts.product,
    started: facts.started,
    ended: facts.ended,
    complete,
    ...(complete && judged.degraded === true ? { degraded: true } : {}),
    state: facts.state,
    nodes: [...stored].map(([node, share]) => nodeOf(facts, node, share)),
    problems: [...missing, ...ofCluster, ...ofNodes].slice(0, MANIFEST_PROBLEM_COUNT_MAX),
    problemCount: missing.length + ofCluster.length + counted,
    totals: totalsOf(shares),
  };
}

function nodeOf(
  facts: BackupFacts,
  node: string,
  share: NodeStoredAnswer,
): Manifest["nodes"][number] {
  return {
    name: node,
    zone: facts.zones.get(node) ?? "",
    version: facts.versions.get(node) ?? "unknown",
    volumes: share.volumes.map((volume) => ({ ...volume, root: textFromPath(volume.root) })),
    list: share.list,
    totals: totalsOf([share]),
  };
}

/** Sockets and the like hold no data; everything else that could not be read does. */
function isWhole(share: NodeStoredAnswer): boolean {
  const harmless = share.problems.filter(({ kind }) => kind === "unsupported").length;
  return share.problemCount === harmless;
}

function totalsOf(shares: readonly NodeStoredAnswer[]): Manifest["totals"] {
  const totals = { files: 0, bytes: 0, newBytes: 0, storedBytes: 0 };
  for (const share of shares) {
    totals.files += share.totals.files;
    totals.bytes += share.totals.bytes;
    totals.newBytes += share.totals.newBytes;
    totals.storedBytes += share.totals.storedBytes;
  }
  return totals;
}
