/**
 * From a configuration to a working node: real doors, the site, the product, the member. The one
 * place where layers that do not know each other are put together.
 */
import { realClock } from "../base/clock.ts";
import { realDatabases } from "../base/databases.ts";
import type { Doors } from "../base/doors.ts";
import { realFileSystem } from "../base/file-system.ts";
import { makeFolders } from "../base/folders.ts";
import { realOutside } from "../base/outside.ts";
import { joinPath } from "../base/path.ts";
import { realRandom } from "../base/random.ts";
import type { BackupSettings } from "../cas/write/backup-settings.ts";
import { BACKUP_SETTINGS_DEFAULT } from "../cas/write/backup-settings.ts";
import type { ChunkerSettings } from "../cas/format/chunker.ts";
import { openWorkerLanes } from "../cas/read/restore-lanes.ts";
import { decodeFrameAside } from "../cas/format/frame-decoder.ts";
import { openPlane } from "../cas/write/plane.ts";
import type { MemberConfig } from "../cluster/member-config.ts";
import { Member } from "../cluster/member.ts";
import type { ScrubEvent } from "../cluster/scrub.ts";
import type { ConfiguredSite } from "../cluster/site-set.ts";
import { checkSource } from "../products/content-checks.ts";
import { createProduct } from "../products/create-product.ts";
import type { CountingSite } from "../sites/counting-site.ts";
import type { Config, SiteConfig } from "./config.ts";
import { openEncryption } from "./config-encryption.ts";
import { createHttpNetwork } from "./http-network.ts";
import type { HttpNetworkOptions } from "./http-network.ts";
import { openSite } from "./open-site.ts";

/** A member with what it stands on; disposing it closes all. */
export type OpenNode = AsyncDisposable & {
  readonly member: Member;
  /** Of the sites that are open, in the order of the configuration. */
  readonly counters: () => readonly CountingSite[];
};

/** The doors of this machine; other nodes are called with the token and authority of the moment. */
export function openDoors(network: Omit<HttpNetworkOptions, "clock">): Doors {
  return {
    clock: realClock,
    random: realRandom,
    files: realFileSystem,
    databases: realDatabases,
    network: createHttpNetwork({ ...network, clock: realClock }),
    outside: realOutside,
  };
}

/** Opens the sites, their repositories and the member of a configuration. */
export async function openNode(
  config: Config,
  options: {
    readonly doors: Doors;
    readonly version: string;
    /** Told of what scrubbing finds. */
    readonly onScrub?: (event: ScrubEvent) => void;
    readonly signal: AbortSignal;
  },
): Promise<OpenNode> {
  const { doors, version, onScrub, signal } = options;
  makeFolders(doors.files, config.self.data, 0o700);
  const product = createProduct(config.self.product);
  const { scratchFolder } = product;
  const encryption = await openEncryption(config);
  const memberConfig = {
    ...memberConfigOf(config),
    ...(encryption === undefined ? {} : { encryption }),
    ...(scratchFolder === undefined ? {} : { scratchFolder }),
  };
  const counters = new Map<string, CountingSite>();
  const member = await Member.open({
    config: memberConfig,
    doors,
    sites: config.sites.map((site, index) => configuredSite(site, { index, doors, counters })),
    product,
    version,
    openPlane: ({ chunker }) =>
      openPlane(doors, chunkerOf(chunker), {
        ...memberConfig.backup,
        contentChecks: checkSource,
      }),
    decode: decodeFrameAside,
    openLanes: openWorkerLanes,
    ...(onScrub === undefined ? {} : { onScrub }),
    signal,
  });
  const closing = new AbortController();
  const scrubbing = member.scrubber.run(closing.signal);
  return {
    member,
    counters: () => config.sites.flatMap(({ name }) => counters.get(name) ?? []),
    async [Symbol.asyncDispose]() {
      closing.abort();
      await scrubbing;
      await member[Symbol.asyncDispose]();
    },
  };
}

/** A site as the cluster's layer opens it; its counters show when it was opened. */
function configuredSite(
  config: SiteConfig,
  options: {
    readonly index: number;
    readonly doors: Doors;
    readonly counters: Map<string, CountingSite>;
  },
): ConfiguredSite {
  const { index, doors, counters } = options;
  return {
    name: config.name,
    firstRole: config.role ?? (index === 0 ? "primary" : "mirror"),
    ...(config.retention === undefined ? {} : { retention: config.retention }),
    ...(config.prices === undefined ? {} : { prices: config.prices }),
    ...(config.limits === undefined ? {} : { limits: config.limits }),
    usage: () => counters.get(config.name),
    async open() {
      const opened = await openSite(config, doors, { proveNow: true });
      counters.set(config.name, opened.counters);
      return opened.site;
    },
  };
}

/** What the cluster's layer is told of a configuration. */
export function memberConfigOf(config: Config): MemberConfig {
  const { backup, self } = config;
  return {
    cluster: config.cluster,
    node: self.name,
    nodes: config.nodes.map(({ name, address, zone }) => ({ name, address, zone: zone ?? "" })),
    dataFolder: self.data,
    scratchFolder: joinPath(self.data, "scratch"),
    backup: {
      ...backupSettingsOf(config),
      attempts: backup.attempts,
      degraded: backup.degraded,
      minimumFreeSpaceBytes: backup.minimumFreeSpaceBytes,
    },
    restore: config.restore,
    repair: config.repair,
    ...(config.scrub === undefined ? {} : { scrub: config.scrub }),
    retention: config.retention,
    undoWindowMs: config.undoWindowMs,
    leaseTimeMs: config.limits.leaseTimeMs,
    nodePatienceMs: backup.nodeTimeoutMs,
  };
}

/** A cloud's client holds a pack more than once while it sends it; more at once broke the memory promise. */
const UPLOADS_MAX = 4;

/** Packs on their way take what the planes leave of the memory that is allowed. */
function backupSettingsOf(config: Config): BackupSettings {
  const { backup, limits, sites } = config;
  const { frameSizeBytes, batchSizeBytes } = BACKUP_SETTINGS_DEFAULT;
  const lanes = Math.max(1, backup.workers);
  const planeBytes = lanes * (2 * batchSizeBytes + backup.packSizeBytes + frameSizeBytes);
  // A pack on its way is one buffer; each site's client may hold a copy of it besides.
  const fit = Math.floor((limits.memoryBytes - planeBytes) / (sites.length * backup.packSizeBytes));
  const wanted = sites[0].type === "directory" ? 2 : Math.min(sites[0].concurrency, UPLOADS_MAX);
  return {
    workers: backup.workers,
    packSizeBytes: backup.packSizeBytes,
    frameSizeBytes,
    compressionLevel: backup.compressionLevel,
    keepEveryBytes: backup.keepEveryBytes,
    lookUpEvery: backup.lookUpEvery,
    rereadShare: backup.rereadShare,
    mirrorPatienceMs: backup.mirrorPatienceMs,
    uploadsMax: Math.max(1, Math.min(wanted, fit)),
    batchSizeBytes,
  };
}

/** The rule is one that this version knows, or the header would have been refused. */
function chunkerOf(rule: {
  readonly rule: string;
  readonly averageSizeBytes: number;
}): ChunkerSettings {
  return rule as ChunkerSettings;
}
