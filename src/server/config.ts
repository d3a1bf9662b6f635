/**
 * Reads a configuration file: text in, a typed configuration for this node out, or one error with
 * every problem and its place. It asks nothing of the world by itself: the environment, the host's
 * name and the reading of secret files are handed in.
 *
 * Units are resolved (`…Ms`, `…Bytes`), defaults are filled in, relative paths start at the folder of
 * the file. `self.data` and `self.product.root` are paths as src/base/path.ts means them (bytes);
 * all other paths are text.
 */
import { dirname, isAbsolute, join } from "node:path";
import { pathFromText } from "../base/path.ts";
import type { Secret } from "../base/secret.ts";
import { parseSize } from "../base/units.ts";
import type { RetentionPolicy } from "../cas/clean/retention.ts";
import type { ScrubSettings } from "../cluster/scrub.ts";
import type { SiteLimits } from "../sites/limited-site.ts";
import type { Prices } from "../sites/prices.ts";
import type { S3SiteOptions } from "../sites/s3-options.ts";
import { lockOf } from "./config-bucket.ts";
import { checkAcross, unknownName } from "./config-checks.ts";
import type { AzureSiteSettings, GcsSiteSettings } from "./config-cloud-sites.ts";
import type { EncryptionConfig } from "./config-encryption.ts";
import { childOf, outlineOf } from "./config-outline.ts";
import { ConfigProblems, findingsOfEmpty, findingsOfIssue, formatPath } from "./config-problems.ts";
import type { Finding } from "./config-problems.ts";
import { resolveProductPaths } from "./config-products.ts";
import type { ProductConfig } from "./config-products.ts";
import { configSchema, DEFAULT_PORT } from "./config-schema.ts";
import type { ParsedFile } from "./config-schema.ts";
import { resolveScrub } from "./config-scrub.ts";
import { resolveSecrets } from "./config-secrets.ts";
import { policyOf } from "./config-retention.ts";
import { limitsOf, pricesOf } from "./config-site-costs.ts";
import { getHttpOrigin, NAME_EXPECTED, NAME_PATTERN } from "./config-names.ts";
import { readConfigSource } from "./config-source.ts";
import type { ConfigSource } from "./config-source.ts";

/** Everything that decides how a file is read. */
export type ConfigInput = {
  readonly text: string;
  /** For messages, and as the place where relative paths start. */
  readonly fileName: string;
  /** From `--node`; wins over `ASTACUS_NODE`, which wins over the host's name. */
  readonly nodeName?: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Reads a secret's file as text; throws if it cannot. */
  readonly readFile: (path: string) => string;
  readonly hostName: string;
};

/** A node, as all nodes see it. `address` is in its normal form, without a slash at the end. */
export type NodeConfig = {
  readonly name: string;
  readonly address: string;
  readonly zone: string | undefined;
};

/** Where the server listens, and with which certificate (paths of PEM files). */
export type ListenConfig = {
  readonly host: string;
  readonly port: number;
  readonly tls:
    | { readonly certificate: string; readonly key: string; readonly ca: string | undefined }
    | undefined;
};

/** This node: what it has in place of the common settings is resolved. */
export type SelfConfig = NodeConfig & {
  readonly listen: ListenConfig;
  readonly data: string;
  readonly product: ProductConfig;
};

/** What a site of any kind may be told about lines and money. */
export type SiteCostConfig = { readonly limits?: SiteLimits; readonly prices?: Prices };

/** What a site of any kind may be told about what it is to the others. */
export type SiteRoleConfig = {
  /** As long as the repository does not say. */
  readonly role?: "primary" | "mirror" | "archive";
  /** In place of the retention of all sites. */
  readonly retention?: RetentionPolicy;
};

/** A folder as a site. */
export type DirectorySiteConfig = SiteRoleConfig &
  SiteCostConfig & {
    readonly type: "directory";
    readonly name: string;
    readonly path: string;
  };

/** A bucket as a site. */
export type S3SiteConfig = SiteRoleConfig &
  SiteCostConfig & {
    readonly type: "s3";
    readonly name: string;
    readonly bucket: string;
    readonly prefix?: string;
    readonly region: string;
    readonly endpoint?: string;
    readonly forcePathStyle: boolean;
    readonly accessKeyId?: Secret;
    readonly secretAccessKey?: Secret;
    readonly sessionToken?: Secret;
    readonly caFile?: string;
    readonly proxy?: string;
    readonly transport: "node" | "fetch";
    readonly concurrency: number;
    readonly requestTimeoutMs: number;
  } & Pick<S3SiteOptions, "lock" | "sse" | "kmsKeyId" | "storageClass" | "unsafeCreate">;

/** A container of Azure Blob Storage as a site. */
export type AzureSiteConfig = SiteRoleConfig & SiteCostConfig & AzureSiteSettings;

/** A bucket of Google Cloud Storage as a site. */
export type GcsSiteConfig = SiteRoleConfig & SiteCostConfig & GcsSiteSettings;

/** A site's settings. */
export type SiteConfig = DirectorySiteConfig | S3SiteConfig | AzureSiteConfig | GcsSiteConfig;

/** What is the same on every node, and enough to read backups from a machine that is none. */
export type SharedConfig = {
  readonly fileName: string;
  /** Lower-case hex SHA-256 of the file's text. */
  readonly hash: string;
  readonly cluster: string;
  readonly nodes: readonly NodeConfig[];
  readonly tokens: {
    readonly admin: Secret | undefined;
    readonly read: Secret | undefined;
    /** `admin` where the file names no other. */
    readonly node: Secret | undefined;
  };
  /** Never empty; the primary comes first. */
  readonly sites: readonly [SiteConfig, ...SiteConfig[]];
  /** Where the repository is encrypted. */
  readonly encryption?: EncryptionConfig;
  readonly retention: RetentionPolicy;
  readonly undoWindowMs: number;
  readonly backup: {
    readonly attempts: number;
    readonly workers: number;
    readonly chunkSizeBytes: number;
    readonly packSizeBytes: number;
    readonly keepEveryBytes: number;
    readonly minimumFreeSpaceBytes: number;
    readonly rereadShare: number;
    readonly lookUpEvery: number;
    readonly compressionLevel: number;
    readonly degraded: boolean;
    readonly mirrorPatienceMs: number;
    readonly nodeTimeoutMs: number;
  };
  /** Whether damage that is found is repaired from another site. */
  readonly repair: boolean;
  /** Rolling verification, if it is wanted. */
  readonly scrub?: ScrubSettings;
  readonly restore: {
    readonly owner: "recorded" | "parent" | "none";
    readonly concurrency: number;
  };
  readonly limits: {
    readonly memoryBytes: number;
    readonly requestBodyBytes: number;
    readonly requestTimeoutMs: number;
    readonly leaseTimeMs: number;
  };
  readonly logLevel: "debug" | "info" | "warn" | "error";
};

/** The configuration of one node. */
export type Config = SharedConfig & { readonly self: SelfConfig };

/**
 * Reads the file as one of its nodes; throws `ConfigProblems`, which lists all there are.
 *
 * @example
 * const config = parseConfig({ text, fileName, environment, readFile, hostName });
 * console.log(config.self.address);
 */
export function parseConfig(input: ConfigInput): Config {
  const { file, index } = parseFile(input, { isNodeNeeded: true });
  const shared = resolveShared(file, input);
  return { ...shared, self: resolveSelf(file, { input, shared, index }) };
}

/**
 * Reads what the nodes share, on any machine: for restores and listings straight from a site.
 * Tokens that are not to be had here are left out; secrets of sites are needed.
 */
export function parseSharedConfig(input: ConfigInput): SharedConfig {
  return resolveShared(parseFile(input, { isNodeNeeded: false }).file, input);
}

function parseFile(
  input: ConfigInput,
  options: { readonly isNodeNeeded: boolean },
): { readonly file: ParsedFile; readonly index: number } {
  const source = readConfigSource(input.text);
  if (source.value === undefined) throw problemsOf(input, source, []);
  const foreign = foreignFinding(source.value);
  if (foreign !== undefined) throw problemsOf(input, source, [foreign]);

  const outline = outlineOf(configSchema);
  const findings: Finding[] = [];
  const value = resolveSecrets(source.value, outline, {
    environment: input.environment,
    readFile: input.readFile,
    folder: dirname(input.fileName),
    report: (finding) => {
      const isToken = finding.path[0] === "tokens";
      if (options.isNodeNeeded || !isToken) findings.push(finding);
    },
  });
  const parsed = configSchema.safeParse(value);
  if (!parsed.success) {
    const issues = parsed.error.issues;
    findings.push(...issues.flatMap((issue) => findingsOfIssue(issue, source.value, outline)));
  }
  findings.push(...findingsOfEmpty(source.empty, source.value, outline));
  findings.push(...checkAcross(value));
  const self = options.isNodeNeeded ? findSelf(source.value, input) : 0;
  if (typeof self !== "number") findings.push(self);
  if (!parsed.success || typeof self !== "number" || findings.length > 0) {
    throw problemsOf(input, source, findings);
  }
  return { file: parsed.data, index: self };
}

function problemsOf(
  input: ConfigInput,
  source: ConfigSource,
  findings: readonly Finding[],
): ConfigProblems {
  const located = new Map(
    findings.map((finding) => {
      const place = source.locate(finding.path, finding.isAtKey === true);
      const { text, hint } = finding;
      const path = formatPath(finding.path);
      const problem = { ...place, path, text, ...(hint === undefined ? {} : { hint }) };
      // The schema and the checks beside it may both miss the same key.
      return [`${path}\n${text}`, problem] as const;
    }),
  );
  const inText = source.errors.map((error) => ({ ...error, path: "" }));
  return new ConfigProblems(input.fileName, [...inText, ...located.values()]);
}

/** A file of the original Astacus would fail in every line; one sentence says more. */
function foreignFinding(value: Readonly<Record<string, unknown>>): Finding | undefined {
  if (value["cluster"] !== undefined) return undefined;
  const key = ["coordinator", "object_storage"].find((name) => value[name] !== undefined);
  if (key === undefined) return undefined;
  return {
    path: [key],
    text: "this looks like a file of the original Astacus",
    hint: "docs/from-the-original.md says how it is converted.",
    isAtKey: true,
  };
}

/** Which of the nodes this is: its index, 0 where the file names none; or why it cannot be said. */
function findSelf(value: unknown, input: ConfigInput): number | Finding {
  const nodes = childOf(value, "nodes");
  const asked = askedName(input);
  if (nodes === undefined) return checkOnlyName(asked ?? input.hostName);
  // A list of the wrong kind is reported by the schema.
  if (!Array.isArray(nodes) || nodes.length === 0) return 0;
  const names = nodes.map((node) => String(childOf(node, "name")));
  if (asked !== undefined) {
    const index = names.indexOf(asked);
    return index >= 0 ? index : unknownName(["nodes"], { what: "node", name: asked, known: names });
  }
  const exact = names.indexOf(input.hostName);
  if (exact >= 0) return exact;
  const similar = names.flatMap((name, index) =>
    firstLabel(name) === firstLabel(input.hostName) ? [index] : [],
  );
  if (similar[0] !== undefined && similar.length === 1) return similar[0];
  if (nodes.length === 1) return 0;
  return {
    path: ["nodes"],
    text: `this machine is called ${input.hostName}; nodes are ${names.join(", ")}`,
    hint: "Say which one it is with --node NAME or ASTACUS_NODE.",
  };
}

function askedName(input: ConfigInput): string | undefined {
  return input.nodeName ?? (input.environment["ASTACUS_NODE"] || undefined);
}

/** A name that comes from outside the file must be as good as one that stands in it. */
function checkOnlyName(name: string): number | Finding {
  if (NAME_PATTERN.test(name)) return 0;
  return {
    path: [],
    text: `this node would be called ${JSON.stringify(name)}; expected ${NAME_EXPECTED}`,
    hint: "Say what it is called with --node NAME or ASTACUS_NODE.",
  };
}

/** `db1` of `db1.example.com`. */
function firstLabel(hostName: string): string {
  return hostName.replace(/\..*$/s, "").toLowerCase();
}

function resolveShared(file: ParsedFile, input: ConfigInput): SharedConfig {
  const { undoWindow, ...rules } = file.retention;
  const admin = usable(file.tokens?.admin);
  const scrub = resolveScrub(file.scrub);
  return {
    fileName: input.fileName,
    hash: new Bun.CryptoHasher("sha256").update(input.text).digest("hex"),
    cluster: file.cluster,
    nodes: resolveNodes(file, input),
    tokens: { admin, read: usable(file.tokens?.read), node: usable(file.tokens?.node) ?? admin },
    sites: resolveSites(file, input),
    ...(file.encryption === undefined ? {} : { encryption: file.encryption }),
    retention: policyOf(rules),
    undoWindowMs: undoWindow,
    backup: resolveBackup(file.backup),
    restore: file.restore,
    repair: file.repair,
    ...(scrub === undefined ? {} : { scrub }),
    limits: {
      memoryBytes: file.limits.memory,
      requestBodyBytes: file.limits.requestBody,
      requestTimeoutMs: file.limits.requestTimeout,
      leaseTimeMs: file.limits.leaseTime,
    },
    logLevel: file.log.level,
  };
}

function resolveBackup(backup: ParsedFile["backup"]): SharedConfig["backup"] {
  return {
    attempts: backup.attempts,
    workers: backup.workers,
    chunkSizeBytes: parseSize(backup.chunkSize),
    packSizeBytes: backup.packSize,
    keepEveryBytes: backup.keepEvery,
    minimumFreeSpaceBytes: backup.minimumFreeSpace,
    rereadShare: backup.rereadShare,
    lookUpEvery: backup.lookUpEvery,
    compressionLevel: backup.compression.level,
    degraded: backup.degraded,
    mirrorPatienceMs: backup.mirrorPatience,
    nodeTimeoutMs: backup.nodeTimeout,
  };
}

function resolveNodes(file: ParsedFile, input: ConfigInput): NodeConfig[] {
  const scheme = file.listen.tls === undefined ? "http" : "https";
  const port =
    file.listen.port === undefined || file.listen.port === 0 ? DEFAULT_PORT : file.listen.port;
  const onlyAddress = `${scheme}://127.0.0.1:${port}`;
  if (file.nodes === undefined) {
    return [{ name: askedName(input) ?? input.hostName, address: onlyAddress, zone: undefined }];
  }
  return file.nodes.map(({ name, address, zone }) => ({
    name,
    address: getHttpOrigin(address ?? onlyAddress) ?? onlyAddress,
    zone,
  }));
}

function resolveSites(file: ParsedFile, input: ConfigInput): [SiteConfig, ...SiteConfig[]] {
  const sites = file.sites.map((site) => resolveSite(site, input));
  const primary = sites.find((site) => site.name === file.primary) ?? sites[0];
  if (primary === undefined) throw new Error("the schema lets no file without sites pass");
  return [primary, ...sites.filter((site) => site !== primary)];
}

function resolveSite(
  { bandwidth, prices, role, retention, ...site }: ParsedFile["sites"][number],
  input: ConfigInput,
): SiteConfig {
  const common = {
    ...(role === undefined ? {} : { role }),
    ...(retention === undefined ? {} : { retention: policyOf(retention) }),
    ...(bandwidth === undefined ? {} : { limits: limitsOf(bandwidth) }),
    ...(prices === undefined ? {} : { prices: pricesOf(prices) }),
  };
  if (site.type === "directory") return { ...site, ...common, path: fromFolder(site.path, input) };
  const caFile = site.caFile === undefined ? undefined : fromFolder(site.caFile, input);
  if (site.type === "azure") {
    const { requestTimeout: requestTimeoutMs, ...rest } = site;
    return defined({ ...rest, ...common, caFile, requestTimeoutMs });
  }
  if (site.type === "gcs") {
    const { requestTimeout: requestTimeoutMs, credentialsFile: file, ...rest } = site;
    const credentialsFile = file === undefined ? undefined : fromFolder(file, input);
    return defined({ ...rest, ...common, caFile, credentialsFile, requestTimeoutMs });
  }
  const { requestTimeout, region, forcePathStyle, endpoint, lock, storageClass, ...rest } = site;
  return defined({
    ...rest,
    ...common,
    endpoint: endpoint === undefined ? undefined : getHttpOrigin(endpoint),
    region: region ?? "us-east-1",
    forcePathStyle: forcePathStyle ?? endpoint !== undefined,
    caFile,
    requestTimeoutMs: requestTimeout,
    lock: lock === undefined ? undefined : lockOf(lock),
    storageClass: storageClass === undefined ? undefined : defined(storageClass),
  });
}

function resolveSelf(
  file: ParsedFile,
  how: { readonly input: ConfigInput; readonly shared: SharedConfig; readonly index: number },
): SelfConfig {
  const { input, shared, index } = how;
  const node = shared.nodes[index];
  if (node === undefined) throw new Error("findSelf gives an index of the nodes");
  const own = file.nodes?.[index];
  const place = (path: string): string => fromFolder(path.replaceAll("{node}", node.name), input);
  const url = new URL(node.address);
  const host =
    shared.tokens.admin === undefined ? "127.0.0.1" : url.hostname.replaceAll(/[[\]]/g, "");
  const urlPort = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port);
  const tls = file.listen.tls;
  return {
    ...node,
    listen: {
      host: own?.listen?.host ?? file.listen.host ?? host,
      port: own?.listen?.port ?? file.listen.port ?? urlPort,
      tls:
        tls === undefined
          ? undefined
          : {
              certificate: place(tls.certificate),
              key: place(tls.key),
              ca: tls.ca === undefined ? undefined : place(tls.ca),
            },
    },
    data: pathFromText(place(own?.data ?? file.data)),
    product: resolveProductPaths(file.product, place, own?.root),
  };
}

function fromFolder(path: string, input: ConfigInput): string {
  return isAbsolute(path) ? path : join(dirname(input.fileName), path);
}

function usable(secret: Secret | undefined): Secret | undefined {
  return secret === undefined || secret.reveal() === "" ? undefined : secret;
}

type Defined<T> = {
  [K in keyof T as undefined extends T[K] ? never : K]: T[K];
} & { [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined> };

/** Without the keys whose value is undefined: left out and undefined are one in a file. */
function defined<T extends object>(value: T): Defined<T> {
  const entries = Object.entries(value).filter(([, child]) => child !== undefined);
  return Object.fromEntries(entries) as Defined<T>;
}
