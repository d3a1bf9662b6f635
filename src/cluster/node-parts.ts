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
import type { RepositoryHeader } from "../cas/format/header.ts";
import type { MemberConfig } from "./member-config.ts";
import type { SiteSet } from "./site-set.ts";
import type { ReadManifest, SourceHow } from "./site-sources.ts";
import type { OpenSite } from "./site-views.ts";

/** What a node's side works with whatever site it works on. */
export type NodeBase = {
  readonly config: MemberConfig;
  readonly doors: Doors;
  readonly sites: SiteSet;
  readonly product: Product;
  readonly version: string;
  /** The write path for the chunks of a repository. */
  readonly openPlane: (header: RepositoryHeader) => DataPlane;
  readonly openLanes?: OpenLanes;
};

/** Everything that a node's side needs, on the site that an operation works on. */
export type NodeParts = {
  readonly config: MemberConfig;
  readonly doors: Doors;
  readonly sites: SiteSet;
  readonly repository: Repository;
  readonly catalog: Catalog;
  readonly product: Product;
  readonly version: string;
  readonly openPlane: () => DataPlane;
  /** The threads of a restore; in this one, as in the simulator, unless told. */
  readonly openLanes?: OpenLanes;
  /** A chunk source that reads through this node's index. */
  readonly openSource: (how?: SourceHow) => ChunkSource;
  readonly readManifest: ReadManifest;
};

/** The parts for one site. */
export function nodePartsOn(base: NodeBase, site: OpenSite): NodeParts {
  const { repository, catalog, openSource, readManifest } = site;
  const openPlane = (): DataPlane => base.openPlane(repository.header);
  return { ...base, repository, catalog, openSource, readManifest, openPlane };
}
