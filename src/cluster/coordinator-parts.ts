/**
 * What a coordinator works with; every operation gets the same.
 */
import type { Database } from "bun:sqlite";
import type { Doors } from "../base/doors.ts";
import type { ChunkSource } from "../cas/read/chunk-source.ts";
import type { Repository } from "../cas/log/repository.ts";
import type { Product } from "../products/product.ts";
import type { ClaimTable } from "./claims.ts";
import type { MemberConfig } from "./member-config.ts";
import type { NodeAddress } from "./network.ts";
import type { SiteSet } from "./site-set.ts";
import type { SourceHow } from "./site-sources.ts";
import type { OpenSite } from "./site-views.ts";

/** The coordinator's side of a member, for one operation on one site. */
export type CoordinatorParts = {
  readonly config: MemberConfig;
  readonly doors: Doors;
  /** All sites of this node. */
  readonly sites: SiteSet;
  /** The site that this operation works on, and what it is there. */
  readonly site: OpenSite;
  readonly repository: Repository;
  readonly product: Product;
  readonly version: string;
  /** This node, as others reach it. */
  readonly self: NodeAddress;
  /** Claim tables of running backups, by operation. */
  readonly claims: Map<string, ClaimTable>;
  /** A connection whose temporary tables are this operation's alone. */
  readonly claimsDatabase: () => Database;
  /** Reads chunks through this node's index; dispose it. */
  readonly openSource: (how?: SourceHow) => ChunkSource;
};
