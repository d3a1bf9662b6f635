/**
 * Which node's share of a backup goes to which node of the cluster: by name first, then by
 * availability zone, then whatever is left, in order of names. Pure; the plan shows the outcome
 * before a byte moves.
 */
import { AppError } from "../base/error.ts";

/** A node, of the backup or of the cluster. */
export type MapNode = { readonly name: string; readonly zone: string };
/** One share and its place. */
export type MapPair = { readonly from: string; readonly to: string };

/**
 * Maps all shares of a backup. Throws AppError `refused` if there are fewer nodes than shares.
 * Nodes that get no share are left alone.
 */
export function mapNodes(backup: readonly MapNode[], cluster: readonly MapNode[]): MapPair[] {
  if (cluster.length < backup.length) {
    throw new AppError(
      "refused",
      `The backup has ${backup.length} nodes, this cluster has ${cluster.length}.`,
      { guidance: "Restore single nodes with --node FROM=TO, or all files with --to DIRECTORY." },
    );
  }
  const free = new Map(cluster.toSorted(byName).map((node) => [node.name, node]));
  const open = new Map(backup.toSorted(byName).map((node) => [node.name, node]));
  const pairs: MapPair[] = [];
  const pair = (from: MapNode, to: MapNode | undefined): void => {
    if (to === undefined) return;
    pairs.push({ from: from.name, to: to.name });
    free.delete(to.name);
    open.delete(from.name);
  };
  for (const share of open.values()) pair(share, free.get(share.name));
  for (const share of open.values()) {
    pair(
      share,
      [...free.values()].find((node) => share.zone !== "" && node.zone === share.zone),
    );
  }
  for (const share of open.values()) pair(share, [...free.values()][0]);
  return pairs.toSorted((a, b) => (a.from < b.from ? -1 : 1));
}

/** Checks pairs that somebody asked for: both sides exist, and no node gets two shares. */
export function checkPairs(
  pairs: readonly MapPair[],
  backup: readonly MapNode[],
  cluster: readonly MapNode[],
): MapPair[] {
  const taken = new Set<string>();
  for (const { from, to } of pairs) {
    mustKnow(backup, from, "The backup");
    mustKnow(cluster, to, "This cluster");
    if (taken.has(to)) {
      throw new AppError("usage", `Node ${to} would get two shares.`, {
        guidance: "Give each node of the cluster at most one --node FROM=TO.",
      });
    }
    taken.add(to);
  }
  return [...pairs];
}

function mustKnow(nodes: readonly MapNode[], name: string, whose: string): void {
  if (nodes.some((node) => node.name === name)) return;
  throw new AppError("not-found", `${whose} has no node ${name}.`, {
    guidance: `Its nodes are ${nodes.map((node) => node.name).join(", ")}.`,
  });
}

function byName(a: MapNode, b: MapNode): number {
  return a.name < b.name ? -1 : 1;
}
