/**
 * Where chunks and manifests are read: at the site that an operation works on, and where that does
 * not give them, at the next one that answers (mirrors before archives). Whatever is checked rather
 * than read, is read at one site alone: there a fault must show.
 */
import type { Clock } from "../base/doors.ts";
import type { FrameDecoder } from "../cas/format/frame-decoder.ts";
import { manifestKey } from "../cas/format/ids.ts";
import type { Manifest } from "../cas/format/manifest.ts";
import { readManifest } from "../cas/format/manifest.ts";
import type { Repository } from "../cas/log/repository.ts";
import type { BackupRecord } from "../cas/log/state.ts";
import { ChunkSource } from "../cas/read/chunk-source.ts";
import type { FrameOpener } from "../cas/keys/frame-opener.ts";
import { Failover, mayBeElsewhere } from "../cas/read/failover.ts";
import type { ReadFaultKind } from "../cas/read/failover.ts";
import type { SiteLimits } from "../sites/limited-site.ts";
import type { ReadFaults } from "./read-faults.ts";

/** A site that can be read. */
export type SourceSite = { readonly name: string; readonly repository: Repository };

/** The manifest of a backup that a site lists, from wherever it is whole. */
export type ReadManifest = (
  backup: BackupRecord,
  signal?: AbortSignal,
  identities?: readonly string[],
) => Promise<Manifest>;

/** How a source reads. */
export type SourceHow = {
  /** From this site and no other. */
  readonly alone?: boolean;
  /** Of age, beside those that the node is configured with. */
  readonly identities?: readonly string[] | undefined;
};

export type SiteSourcesOptions = {
  readonly clock: Clock;
  /** Requests at once of one source. */
  readonly concurrency: number;
  readonly decode?: FrameDecoder;
  /** With which everything is opened, where the node is configured so. */
  readonly identities?: readonly string[] | undefined;
  readonly faults: ReadFaults;
  /** How long a read at the site of a name may take before the next is asked too. */
  readonly slowMsOf?: (name: string) => number | undefined;
  /** The best site that answers, but for these; nobody where there is one site only. */
  readonly next: ((used: ReadonlySet<string>) => Promise<SourceSite | undefined>) | undefined;
};

/** Bytes of decoded frames that one chunk source keeps. */
const SOURCE_CACHE_BYTES = 16 * 1024 * 1024;

/** A site that is held to a bandwidth is slow because we are. */
const LIMITED_SLOW_MS = 10 * 60_000;

/** How long a read may take at a site with these limits; undefined for as long as anywhere. */
export function slowMsWith(limits: SiteLimits | undefined): number | undefined {
  return limits === undefined ? undefined : LIMITED_SLOW_MS;
}

/** Opens sources over the sites of a node. */
export class SiteSources {
  readonly #options: SiteSourcesOptions;

  constructor(options: SiteSourcesOptions) {
    this.#options = options;
  }

  /** A source of chunks that begins at a site. */
  open(site: SourceSite, how: SourceHow = {}): ChunkSource {
    return this.#openAfter(new Set(), site, how);
  }

  /** The manifest of a backup, from the first site that has it whole. */
  async readManifest(
    site: SourceSite,
    backup: BackupRecord,
    signal?: AbortSignal,
    identities?: readonly string[],
  ): Promise<Manifest> {
    const { next, clock, faults } = this.#options;
    const read = ({ repository }: SourceSite, record: BackupRecord, inner?: AbortSignal) =>
      readManifest(repository.site, record, inner, this.#openerOf(repository, identities));
    if (next === undefined) return await read(site, backup, signal);
    const { id, birth } = backup.manifest;
    const fault = {
      site: site.repository.site.name,
      key: manifestKey(id, birth),
      manifest: id,
    };
    const note = (kind: ReadFaultKind): void =>
      faults.note(site.repository.header.site, { ...fault, kind });
    const failover = new Failover<SourceSite>({
      clock,
      ...this.#slowOf(site),
      next: async () => await next(new Set([site.name])),
    });
    const here = async (inner?: AbortSignal): Promise<Manifest> => {
      try {
        return await read(site, backup, inner);
      } catch (thrown) {
        if (mayBeElsewhere(thrown) && thrown.kind === "damaged") {
          note("damaged");
        }
        throw thrown;
      }
    };
    const there = async (other: SourceSite, inner?: AbortSignal): Promise<Manifest> =>
      await read(other, other.repository.state.backups.get(backup.backup) ?? backup, inner);
    return await failover.read({ here, there, onSilent: note }, signal);
  }

  #slowOf({ name }: SourceSite): { readonly slowMs?: number } {
    const slowMs = this.#options.slowMsOf?.(name);
    return slowMs === undefined ? {} : { slowMs };
  }

  #openerOf(repository: Repository, identities: readonly string[] = []): FrameOpener {
    return repository.openerFor([...identities, ...(this.#options.identities ?? [])]);
  }

  #openAfter(before: ReadonlySet<string>, site: SourceSite, how: SourceHow): ChunkSource {
    const { clock, concurrency, decode, faults, next } = this.#options;
    const { repository } = site;
    const used = new Set([...before, site.name]);
    const openNext = async (): Promise<ChunkSource | undefined> => {
      const other = await next?.(used);
      return other === undefined ? undefined : this.#openAfter(used, other, how);
    };
    const isAlone = next === undefined || how.alone === true;
    return new ChunkSource({
      site: repository.site,
      index: repository.index,
      state: () => repository.state,
      concurrency,
      cacheBytes: SOURCE_CACHE_BYTES,
      opener: this.#openerOf(repository, how.identities),
      ...(decode === undefined ? {} : { decode }),
      // Who reads one site alone has a report of its own.
      onFault: (fault) => {
        if (how.alone === true) faults.count(fault);
        else faults.note(repository.header.site, fault);
      },
      ...(isAlone ? {} : { failover: { next: openNext, clock, ...this.#slowOf(site) } }),
    });
  }
}
