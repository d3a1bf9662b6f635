/**
 * What goes wrong while an operation of a simulated cluster runs: processes die, wires break, the
 * power fails, clocks jump, disks fill up, objects are out of reach, answers are wrong. Everything is
 * mended when the step ends.
 */
import { listKeys } from "./walk-damage.ts";
import type { SimulatedCluster } from "./simulated-cluster.ts";
import type { SimulatedNode } from "./simulated-node.ts";

/** Plans something for later in this step. */
export type Later = (ms: number, happen: () => void) => void;

type Disturbance = (cluster: SimulatedCluster, at: Place, later: Later) => Promise<void> | void;

type Place = { readonly coordinator: SimulatedNode; readonly node: SimulatedNode };

/** When things go wrong, counted from the start of an operation. */
const WHEN_MS_MAX = 600;
const HOUR_MS = 3_600_000;

/** Lets one of them happen. */
export async function disturb(
  cluster: SimulatedCluster,
  coordinator: SimulatedNode,
  later: Later,
): Promise<void> {
  const node = cluster.pick(cluster.nodes);
  const happen = cluster.pick(DISTURBANCES);
  await happen(cluster, { coordinator, node }, later);
}

const DISTURBANCES: readonly Disturbance[] = [
  (cluster, { coordinator, node }, later) => {
    cluster.countFault("node killed");
    const afterMs = cluster.draw(WHEN_MS_MAX);
    later(afterMs, () => node.kill());
    if (cluster.chance(0.5) && node !== coordinator) {
      later(afterMs + 2000, () => void restartQuietly(node));
    }
  },
  (cluster, { coordinator }, later) => {
    cluster.countFault("coordinator killed");
    later(cluster.draw(WHEN_MS_MAX), () => coordinator.kill());
  },
  (cluster, { node }, later) => {
    const other = cluster.pick(cluster.nodes);
    if (other === node) return;
    cluster.countFault("partition");
    const afterMs = cluster.draw(WHEN_MS_MAX);
    later(afterMs, () => cluster.network.cut(`sim://${node.name}`, `sim://${other.name}`));
    later(afterMs + cluster.draw(120_000), () => cluster.network.heal());
  },
  (cluster) => {
    cluster.network.rates = { dropped: 0.02, answerLost: 0.03, duplicated: 0.1, delayed: 0.1 };
  },
  (cluster) => {
    const rates = { "error-before": 0.02, "error-after": 0.02, duplicate: 0.03, late: 0.02 };
    cluster.siteRates = rates;
  },
  (cluster) => {
    cluster.siteRates = { storm: 0.02, slow: 0.05 };
  },
  (cluster) => {
    cluster.siteRates = { truncated: 0.01, flipped: 0.01 };
  },
  (cluster) => {
    cluster.siteRates = { hidden: 0.05, stale: 0.3 };
  },
  (cluster, { node }) => {
    cluster.countFault("disk full");
    const { freeBytes, totalBytes } = node.files.space("/");
    node.files.setCapacity(totalBytes - freeBytes + cluster.draw(2000));
  },
  (cluster, _, later) => {
    later(cluster.draw(WHEN_MS_MAX), () => cluster.cutPower());
  },
  (cluster, _, later) => {
    cluster.countFault("clock jumped meanwhile");
    const ms = cluster.pick([-HOUR_MS, -1000, HOUR_MS, 40 * 24 * HOUR_MS]);
    later(cluster.draw(WHEN_MS_MAX), () => cluster.clock.jump(ms));
  },
  async (cluster, _, later) => {
    const key = cluster.pick(await listKeys(cluster));
    cluster.countFault(`object hidden: ${key.split("/")[0]}`);
    later(cluster.draw(WHEN_MS_MAX), () => cluster.store.shades.set(key, { kind: "hidden" }));
    later(WHEN_MS_MAX + cluster.draw(20_000), () => cluster.store.shades.clear());
  },
];

async function restartQuietly(node: SimulatedNode): Promise<void> {
  if (!node.isUp) await node.start().catch(() => node.kill());
}
