/**
 * What one node's side of the operations works with.
 */
import type { Doors } from "../base/doors.ts";
import type { Catalog } from "../cas/catalog/catalog.ts";
import type { ChunkSource } from "../cas/read/chunk-source.ts";
import type { OpenLanes } from "../cas/read/restore-lanes.ts";
import type { DataPlane } from "../cas/write/plane.ts";
import type { Repository } from "../cas/log/repository.ts";
import type { Product } from "../products/product.ts";
import type { MemberConfig } from "./member-config.ts";

/** Everything that a node's side needs. */
export type NodeParts = {
  readonly config: MemberConfig;
  readonly doors: Doors;
  readonly repository: Repository;
  readonly catalog: Catalog;
  readonly product: Product;
  readonly version: string;
  readonly openPlane: () => DataPlane;
  /** The threads of a restore; in this one, as in the simulator, unless told. */
  readonly openLanes?: OpenLanes;
  /** A chunk source that reads through this node's index. */
  readonly openSource: () => ChunkSource;
};
