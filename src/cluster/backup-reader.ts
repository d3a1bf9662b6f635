/**
 * What a member shows of backups and sites to somebody who waits: from the primary, or from the best
 * site that answers. What was seen a moment ago will do.
 */
import type { Clock } from "../base/doors.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";
import type { PlacesOptions, Prove } from "./backup-places.ts";
import { placesOf, siteWith, summarizeAcross } from "./backup-places.ts";
import type { BackupDetail, BackupSummary } from "./backup-summary.ts";
import { detailOf } from "./backup-summary.ts";
import type { MemberConfig } from "./member-config.ts";
import { lockWarning } from "./site-locks.ts";
import type { LookOptions, SiteSet } from "./site-set.ts";
import type { SiteStatus } from "./site-status.ts";
import { statusOfSites } from "./site-status.ts";
import type { OpenSite, SitesNow } from "./site-views.ts";

/** How often a reader asks the logs for news, also those of sites that have failed lately. */
export const LOOK_OF_A_PERSON: LookOptions = { maxAgeMs: 1_000, asksAgain: true };

const NOTHING_SEEN: SitesNow = { roles: undefined, sites: [] };

/** What a reader works with. */
export type BackupReaderOptions = {
  readonly sites: SiteSet;
  readonly config: Pick<MemberConfig, "cluster" | "retention">;
  readonly clock: Clock;
  readonly prove: Prove;
};

/** Lists, shows, and says where a backup is read. */
export class BackupReader {
  readonly #options: BackupReaderOptions;

  constructor(options: BackupReaderOptions) {
    this.#options = options;
  }

  /** What is read at another site than the primary now, and why; undefined if nothing is. */
  get notice(): string | undefined {
    const { sites } = this.#options;
    return sites.last === undefined ? undefined : sites.readableOf(sites.last)?.notice;
  }

  /** All sites as of the last look. */
  get statuses(): SiteStatus[] {
    const { sites, config, clock } = this.#options;
    return statusOfSites({
      now: sites.last ?? NOTHING_SEEN,
      stateOf: (view) => sites.stateOf(view),
      locksOf: (id) => sites.locks.of(id),
      retention: config.retention,
      nowMs: clock.now(),
      configured: sites.configured,
    });
  }

  /** What somebody should see to, whatever was asked. */
  get warnings(): string[] {
    const nowMs = this.#options.clock.now();
    return this.statuses.flatMap((site) => lockWarning(site, nowMs) ?? []);
  }

  async list(options: {
    readonly forgotten?: boolean;
    readonly signal?: AbortSignal;
  }): Promise<BackupSummary[]> {
    const site = await this.siteOf(undefined, options.signal);
    const forgotten = options.forgotten ?? false;
    const rows = summarizeAcross({ ...this.#placesOn(site), forgotten });
    const prove = this.#options.prove(site.id);
    return rows.map((row) => ({ ...row, ...provedOf(prove(row)) }));
  }

  async show(wanted: string, signal?: AbortSignal): Promise<BackupDetail> {
    const site = await this.siteOf(wanted, signal);
    const found = await detailOf(site.repository, wanted, {
      retention: this.#retentionOf(site),
      cluster: this.#options.config.cluster,
      site: site.name,
      readManifest: (backup) => site.readManifest(backup, signal),
    });
    const sites = placesOf(this.#placesOn(site))(found.id);
    return { ...found, sites, ...provedOf(this.#options.prove(site.id)(found)) };
  }

  /** Where a backup is read: at the primary, or at another site that lists it. */
  async siteOf(backup: string | undefined, signal?: AbortSignal): Promise<OpenSite> {
    const { site } = await this.#options.sites.readable(signal, LOOK_OF_A_PERSON);
    return this.siteWith(site, backup);
  }

  /** The site at hand if it lists the backup, else another one that does. */
  siteWith(site: OpenSite, backup: string | undefined): OpenSite {
    const { sites, config } = this.#options;
    const { cluster } = config;
    return sites.last === undefined ? site : siteWith(sites.last, site, { backup, cluster });
  }

  #retentionOf(site: OpenSite): RetentionPolicy {
    const { sites, config } = this.#options;
    const view = sites.last?.sites.find(({ id }) => id === site.id);
    return view?.retention ?? config.retention;
  }

  #placesOn(site: OpenSite): PlacesOptions {
    const { sites, config, prove } = this.#options;
    return {
      now: sites.last ?? NOTHING_SEEN,
      site,
      stateOf: (view) => sites.stateOf(view),
      retention: config.retention,
      prove,
    };
  }
}

function provedOf(ms: number | undefined): { readonly provedAt?: string } {
  return ms === undefined ? {} : { provedAt: new Date(ms).toISOString() };
}
