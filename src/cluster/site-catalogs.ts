/**
 * The catalogs of a node: one for each site that it has opened, since a catalog belongs to one log.
 * `catalog.sqlite` belongs to the site that the node began with and also remembers what concerns all
 * sites: which id each name had, and the best roles that were seen. All of it is a cache but the ids,
 * by which another store that was put in a site's place is refused.
 */
import { z } from "zod";
import type { Databases } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { joinPath } from "../base/path.ts";
import { Catalog, catalogLocation } from "../cas/catalog/catalog.ts";
import type { Binding } from "../cas/catalog/catalog-log.ts";
import { CatalogLog } from "../cas/catalog/catalog-log.ts";
import { decodeHeader, encodeHeader } from "../cas/format/header.ts";
import type { FoundHeader } from "../cas/log/header-object.ts";
import type { RepositoryState, Roles } from "../cas/log/state.ts";
import { rememberedRolesSchema } from "./site-roles.ts";

const ROLES_KEY = "roles";

const rememberedHeaderSchema = z.strictObject({ hash: z.string(), header: z.string() });

/** See the file's header. */
export class SiteCatalogs implements Disposable {
  readonly main: Catalog;
  readonly #databases: Databases;
  readonly #folder: string;
  readonly #others = new Map<string, Catalog>();
  readonly #remembered = new Map<string, RepositoryState | undefined>();
  #mainSite: string | undefined;
  #repository: string | undefined;

  /** Opens the first catalog; `folder` is the node's own. */
  constructor(databases: Databases, folder: string) {
    this.#databases = databases;
    this.#folder = folder;
    this.main = Catalog.open(databases, joinPath(folder, "catalog.sqlite"));
    const binding = bindingOf(this.main);
    this.#mainSite = binding?.site;
    this.#repository = binding?.repository;
  }

  /**
   * The catalog of the site that was found under a name. Refuses another repository than this node
   * knows, and another site than the name had before.
   */
  open(name: string, location: string, found: FoundHeader): Catalog {
    const { header } = found;
    const known = this.idOf(name);
    const isOtherRepository =
      this.#repository !== undefined && this.#repository !== header.repository;
    if (isOtherRepository || (known !== undefined && known !== header.site)) {
      const former = known === undefined ? "" : `, site ${known}`;
      throw new AppError(
        "refused",
        `Site ${name} (${location}) holds repository ${header.repository}, site ${header.site}; ` +
          `this node knows repository ${this.#repository ?? header.repository}${former}.`,
        {
          guidance:
            "Check that the right directory is mounted or the right bucket is named. If the site " +
            "was replaced on purpose, give it another name in the configuration, or remove the " +
            `catalogs (${catalogLocation(this.main)}).`,
          context: { site: name, found: header.site, ...(known === undefined ? {} : { known }) },
        },
      );
    }
    this.#repository = header.repository;
    if (known === undefined) this.main.set(`site ${name}`, header.site);
    this.#rememberHeader(found);
    this.#remembered.delete(header.site);
    return this.of(header.site);
  }

  /** The catalog of a site, by its id; made where there is none. */
  of(site: string): Catalog {
    this.#mainSite ??= site;
    if (site === this.#mainSite) return this.main;
    const open = this.#others.get(site);
    if (open !== undefined) return open;
    const path = joinPath(this.#folder, `catalog-${site}.sqlite`);
    const catalog = Catalog.open(this.#databases, path);
    this.#others.set(site, catalog);
    return catalog;
  }

  /**
   * What this node last saw of a site's log, without the site; undefined if it never saw it, or cannot
   * read what it kept (of an encrypted repository).
   */
  stateOf(site: string): RepositoryState | undefined {
    // As long as the site is not open, nobody writes to its catalog.
    if (!this.#remembered.has(site)) this.#remembered.set(site, this.#load(site));
    return this.#remembered.get(site);
  }

  #load(site: string): RepositoryState | undefined {
    const text = this.main.get(`header ${site}`);
    if (text === undefined) return undefined;
    try {
      const { hash, header } = rememberedHeaderSchema.parse(JSON.parse(text));
      const decoded = decodeHeader(new TextEncoder().encode(header), `site ${site}`);
      return new CatalogLog(this.of(site)).load(decoded, hash);
    } catch (thrown) {
      if (thrown instanceof AppError) return undefined;
      throw thrown;
    }
  }

  /** The id of the site that had this name when it was last open. */
  idOf(name: string): string | undefined {
    return this.main.get(`site ${name}`);
  }

  /** The best roles that this node has seen anywhere. */
  get roles(): Roles | undefined {
    const text = this.main.get(ROLES_KEY);
    return text === undefined ? undefined : rememberedRolesSchema.parse(JSON.parse(text));
  }

  /** Remembers roles, for a start without the site that tells of them. */
  rememberRoles(roles: Roles): void {
    const text = JSON.stringify(roles);
    if (this.main.get(ROLES_KEY) !== text) this.main.set(ROLES_KEY, text);
  }

  #rememberHeader({ header, hash }: FoundHeader): void {
    const key = `header ${header.site}`;
    const text = JSON.stringify({ hash, header: new TextDecoder().decode(encodeHeader(header)) });
    if (this.main.get(key) !== text) this.main.set(key, text);
  }

  [Symbol.dispose](): void {
    for (const catalog of this.#others.values()) catalog[Symbol.dispose]();
    this.main[Symbol.dispose]();
  }
}

/** A row that has rotted says nothing; the repository builds the catalog again. */
function bindingOf(catalog: Catalog): Binding | undefined {
  try {
    return new CatalogLog(catalog).getBinding();
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.context["catalog"] === true) return undefined;
    throw thrown;
  }
}
