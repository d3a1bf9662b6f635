/**
 * The other sites of a reader without a server, for what its first one does not give: each is opened
 * when it is needed, with a temporary catalog of its own, and only read.
 */
import type { Doors } from "../base/doors.ts";
import { joinPath } from "../base/path.ts";
import { Catalog } from "../cas/catalog/catalog.ts";
import { Repository } from "../cas/log/repository.ts";
import { mayBeElsewhere } from "../cas/read/failover.ts";
import type { Site } from "../sites/site.ts";
import type { NodeEncryption } from "./member-config.ts";
import type { SourceSite } from "./site-sources.ts";

/** A site that can be connected to; who gave it closes it. */
export type OtherSite = { readonly name: string; readonly open: () => Promise<Site> };

/** What they are opened with. */
export type OtherSitesOptions = {
  readonly others: readonly OtherSite[];
  /** The repository that they must be sites of. */
  readonly repository: string;
  readonly doors: Pick<Doors, "clock" | "random" | "databases">;
  /** Of the temporary catalogs; its owner removes it. */
  readonly tempFolder: string;
  readonly encryption?: NodeEncryption | undefined;
  readonly signal?: AbortSignal | undefined;
};

/** Opens them in their order. */
export class OtherSites implements Disposable {
  readonly #options: OtherSitesOptions;
  readonly #opened = new Map<string, Promise<SourceSite>>();
  readonly #catalogs: Catalog[] = [];

  constructor(options: OtherSitesOptions) {
    this.#options = options;
  }

  /** The first that answers, but for these. */
  async next(used: ReadonlySet<string>): Promise<SourceSite | undefined> {
    for (const other of this.#options.others) {
      if (used.has(other.name)) continue;
      const opening = this.#opened.get(other.name) ?? this.#open(other);
      this.#opened.set(other.name, opening);
      try {
        return await opening;
      } catch (thrown) {
        this.#opened.delete(other.name);
        if (!mayBeElsewhere(thrown)) throw thrown;
      }
    }
    return undefined;
  }

  [Symbol.dispose](): void {
    for (const catalog of this.#catalogs) catalog[Symbol.dispose]();
  }

  async #open({ name, open }: OtherSite): Promise<SourceSite> {
    const { doors, tempFolder, encryption, repository: id, signal } = this.#options;
    const site = await open();
    const file = `catalog-${this.#catalogs.length + 1}.sqlite`;
    const catalog = Catalog.open(doors.databases, joinPath(tempFolder, file));
    this.#catalogs.push(catalog);
    const repository = await Repository.open({
      site,
      catalog,
      doors,
      node: "offline",
      readOnly: true,
      expected: { repository: id },
      encryption,
      ...(signal === undefined ? {} : { signal }),
    });
    return { name, repository };
  }
}
