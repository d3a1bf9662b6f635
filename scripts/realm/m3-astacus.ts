/**
 * Servers of Astacus beside the nodes of a real M3 cluster: one for each, with one configuration, as
 * an operator would have it.
 */
import { ProcessCluster } from "../scenario-cluster.ts";
import type { ProcessClusterOptions } from "../scenario-cluster.ts";
import type { M3Realm } from "./m3-realm.ts";

/** Where the servers and their site are. */
export type BesideOptions = Pick<
  ProcessClusterOptions,
  "folder" | "site" | "more" | "environment" | "runAs" | "nodes"
> & {
  /** More lines of the `product` section. */
  readonly product?: readonly string[];
};

/** `node1`, …: as the folders of the realm's nodes are called. */
export function nodeNames(realm: M3Realm): string[] {
  return realm.nodes.map(({ number }) => `node${number}`);
}

/** Makes folders and the configuration for a realm; starts nothing. */
export async function besideM3(realm: M3Realm, options: BesideOptions): Promise<ProcessCluster> {
  const { environment, zone } = realm.settings;
  const instances = realm.nodes.map(
    ({ number, hostId, ports }) =>
      `node${number}: {id: ${hostId}, endpoint: "127.0.0.1:${ports.node}", ` +
      `httpPorts: {node: ${ports.nodeHttp}, cluster: ${ports.clusterHttp}}}`,
  );
  return await ProcessCluster.make({
    ...options,
    nodes: options.nodes ?? nodeNames(realm),
    root: `${realm.folder}/{node}/data`,
    productType: "m3",
    product: [
      `etcd: {endpoints: ["${realm.etcdEndpoint}"]}`,
      `environment: ${environment}`,
      `zone: ${zone}`,
      `instances: {${instances.join(", ")}}`,
      ...(options.product ?? []),
    ],
  });
}
