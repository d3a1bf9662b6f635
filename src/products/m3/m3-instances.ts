/**
 * Which M3 instance a node of Astacus is, and what a restore makes of the instances of a backup.
 */
import { AppError } from "../../base/error.ts";
import type { M3Config } from "./m3-config.ts";
import type { InstanceMapping } from "./placement-map.ts";
import type { PlacementDescription } from "./placement.ts";

/** The id of a node's instance in the placement: as configured, else the node's name. */
export function instanceIdOf(config: M3Config, node: string): string {
  return config.instances[node]?.id ?? node;
}

/** A node's share on its way: from an instance of the backup to a node that is there. */
export type InstanceShare = { readonly from: string; readonly to: string };

/**
 * How the instances of a backup's placement map to the nodes that get their shares.
 * @param shares - `from`: instance ids of the backup; `to`: names of nodes.
 * @throws AppError `config` where an instance with a new id has no endpoint.
 */
export function mapInstances(
  config: M3Config,
  placement: PlacementDescription,
  shares: readonly InstanceShare[],
): InstanceMapping[] {
  return shares.map(({ from, to }) => {
    const { endpoint, hostname, isolationGroup } = config.instances[to] ?? {};
    const id = instanceIdOf(config, to);
    const old = placement.instances.find((instance) => instance.id === from);
    if (endpoint === undefined && id !== from) throw noEndpoint(to, id, from);
    const address = endpoint === undefined ? undefined : splitAddress(endpoint);
    return {
      from,
      to: {
        id,
        ...(address === undefined
          ? {}
          : { endpoint: address.endpoint, hostname: hostname ?? address.host, port: address.port }),
        ...(address === undefined && hostname !== undefined ? { hostname } : {}),
        ...(isolationGroup === undefined ? {} : { isolationGroup }),
        ...(old?.zone === config.zone ? {} : { zone: config.zone }),
      },
    };
  });
}

function noEndpoint(node: string, id: string, from: string): AppError {
  return new AppError(
    "config",
    `Node ${node} becomes M3 instance ${id} in place of ${from}, and nobody knows its address.`,
    {
      guidance: `Set product.instances.${node}.endpoint to HOST:PORT of db.listenAddress there.`,
    },
  );
}

/** `[::1]:9000` has its host in brackets. */
function splitAddress(endpoint: string): { endpoint: string; host: string; port: number } {
  const colon = endpoint.lastIndexOf(":");
  const host = endpoint.slice(0, colon).replaceAll(/[[\]]/g, "");
  return { endpoint, host, port: Number(endpoint.slice(colon + 1)) };
}
