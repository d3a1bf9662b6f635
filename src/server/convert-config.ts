/**
 * Turns a configuration file of the original Astacus into one of ours. It takes the keys it knows
 * how to translate, and whatever is left over at the end is named in the notes, so nothing is
 * dropped in silence. Secrets are not copied: the result names environment variables to put them in.
 */
import { stringify } from "yaml";
import { AppError } from "../base/error.ts";
import { childOf } from "./config-outline.ts";
import { PRODUCT_TYPES } from "./config-products.ts";
import { getHttpOrigin } from "./config-names.ts";
import { readConfigSource } from "./config-source.ts";
import { whyGone } from "./convert-config-gone.ts";

/** A converted file, and what to know about it, in full sentences. */
export type ConvertedConfig = { readonly text: string; readonly notes: readonly string[] };

/** One section of the new file; undefined values are left out. */
type Section = { readonly comment: string; readonly value: Record<string, unknown> };

/** Translates a file; throws AppError `config` if it is none of the original's. */
export function convertConfig(
  oldText: string,
  options: { readonly clusterName?: string } = {},
): ConvertedConfig {
  const old = readOld(oldText);
  const notes: string[] = [];
  const plugin = old.takeText("coordinator.plugin") ?? "files";
  const nodes = convertNodes(old);
  const sections: Section[] = [
    {
      comment:
        "The original had no name for a cluster. Backups are listed under it: choose it well.",
      value: { cluster: options.clusterName ?? "my-cluster" },
    },
    { comment: "", value: { nodes: nodes.list } },
    ...convertListen(old, nodes.isRemote, notes),
    ...convertProduct(plugin, old, notes),
    ...convertSites(old, notes),
    ...convertRest(old),
  ];
  if (options.clusterName === undefined) notes.push("Choose a name for `cluster` in the new file.");
  notes.push("The folder of the server's own files is `data`, /var/lib/astacus if left out.");
  notes.push(...notesOnTheRest(old));

  const head = notes.map((note) => `# - ${note}`).join("\n");
  const body = sections.map(renderSection).join("");
  return { text: `# Converted from a file of the original Astacus.\n${head}\n${body}`, notes };
}

function convertNodes(old: OldFile): { readonly list?: object[]; readonly isRemote: boolean } {
  const nodes = old.takeList("coordinator.nodes").map((node) => {
    const url = String(childOf(node, "url"));
    // The path, `/node` by custom, is ours to choose.
    const address = URL.canParse(url) ? getHttpOrigin(new URL(url).origin) : undefined;
    const zone = childOf(node, "az");
    return {
      address: address ?? url,
      ...(typeof zone === "string" && zone !== "" ? { zone } : {}),
    };
  });
  const ownZone = old.takeText("node.az");
  if (nodes.length === 0) return { isRemote: false };
  const hosts = nodes.map(({ address }) => hostOf(address));
  const list = nodes.map(({ address, ...rest }, index) => {
    const host = hosts[index] ?? "";
    const isAlone = hosts.filter((each) => each === host).length === 1;
    const zone =
      nodes.length === 1 && ownZone !== undefined && ownZone !== "" ? { zone: ownZone } : {};
    const name = isAlone ? host : `${host}-${index + 1}`;
    return { name, address: withPort(address), ...zone, ...rest };
  });
  return { list, isRemote: hosts.some((host) => !["localhost", "127.0.0.1"].includes(host)) };
}

function convertListen(old: OldFile, isRemote: boolean, notes: string[]): Section[] {
  const host = old.takeText("uvicorn.host");
  const port = old.take("uvicorn.port");
  const isOpen = isRemote || (host !== undefined && !["localhost", "127.0.0.1"].includes(host));
  const sections: Section[] = [];
  if (host !== undefined || port !== undefined) {
    sections.push({ comment: "", value: { listen: { host, port } } });
  }
  if (isOpen) {
    notes.push("Set ASTACUS_ADMIN_TOKEN on all nodes (`openssl rand -hex 32` makes a good one).");
    sections.push({
      comment: "New: whoever reaches a node over the network must show this token.",
      value: { tokens: { admin: { env: "ASTACUS_ADMIN_TOKEN" } } },
    });
  }
  return sections;
}

function convertProduct(plugin: string, old: OldFile, notes: string[]): Section[] {
  const root = old.takeText("node.root") ?? "/replace/this";
  const product = productOf(plugin, root, old);
  if (product === undefined) {
    notes.push(`The plugin "${plugin}" has no equal here: fill in \`product\` yourself.`);
    return [{ comment: "", value: { product: { type: "files", root } } }];
  }
  if (!PRODUCT_TYPES.includes(String(product["type"]))) {
    notes.push(
      `This version has no product "${String(product["type"])}": it cannot use the file yet.`,
    );
  }
  return [{ comment: "", value: { product } }];
}

function productOf(
  plugin: string,
  root: string,
  old: OldFile,
): Record<string, unknown> | undefined {
  switch (plugin) {
    case "files": {
      const globs = old.takeList("coordinator.plugin_config.root_globs");
      // The original's own links lie there until it is removed.
      return { type: "files", root, include: globs, exclude: [".astacus/**"] };
    }
    case "m3db": {
      const url = old.takeText("coordinator.plugin_config.etcd_url");
      return {
        type: "m3",
        root,
        environment: old.takeText("coordinator.plugin_config.environment"),
        etcd: url === undefined || !URL.canParse(url) ? {} : { endpoints: [new URL(url).origin] },
      };
    }
    case "cassandra":
      return { type: "cassandra", root, ...cassandraOf(old) };
    default:
      return undefined;
  }
}

function cassandraOf(old: OldFile): Record<string, unknown> {
  // The client stands in the coordinator's part, in the node's, or in both.
  const either = (key: string): unknown => {
    const own = old.take(`node.cassandra.client.${key}`);
    return old.take(`coordinator.plugin_config.client.${key}`) ?? own;
  };
  const client = {
    hosts: either("hostnames"),
    port: either("port"),
    username: either("username"),
    password: either("password") === undefined ? undefined : { env: "ASTACUS_CASSANDRA_PASSWORD" },
    caFile: either("ca_cert_path"),
  };
  return {
    configFile: either("config_path"),
    client,
    commands: {
      nodetool: old.take("node.cassandra.nodetool_command"),
      start: old.take("node.cassandra.start_command"),
      stop: old.take("node.cassandra.stop_command"),
    },
    // The original's own default.
    readOnly: (old.takeText("node.cassandra.access_level") ?? "read") === "read",
  };
}

function convertSites(old: OldFile, notes: string[]): Section[] {
  const base = ["object_storage", "coordinator.object_storage", "node.object_storage"].find(
    (path) => Object.keys(old.peek(`${path}.storages`)).length > 0,
  );
  if (base === undefined) {
    notes.push("The old file names no storages: fill in `sites` yourself.");
    return [{ comment: "", value: { sites: [] } }];
  }
  const primary = old.takeText(`${base}.default_storage`);
  const names = Object.keys(old.peek(`${base}.storages`));
  const sites = names.flatMap((name) => {
    const site = siteOf(name, `${base}.storages.${name}`, old);
    if (site === undefined)
      notes.push(`The storage "${name}" is of a kind that has no equal here.`);
    return site === undefined ? [] : [site];
  });
  if (sites.some((site) => site["type"] !== "directory")) {
    notes.push("Keys of buckets are not copied: put them into the variables that `sites` names.");
  }
  const isKnown = sites.some((site) => site["name"] === primary);
  return [
    {
      comment:
        "A repository of its own beside the old one, which stays as it is. Make it with `astacus site init`.",
      value: { sites, ...(isKnown ? { primary } : {}) },
    },
  ];
}

function siteOf(name: string, path: string, old: OldFile): Record<string, unknown> | undefined {
  const type = old.takeText(`${path}.storage_type`);
  const prefix = old.takeText(`${path}.prefix`)?.replaceAll(/^\/+|\/+$/g, "") ?? "";
  const own = [prefix, "repository"].filter((part) => part !== "").join("/");
  if (type === "local") {
    const directory = old.takeText(`${path}.directory`) ?? "/replace/this";
    return { name, type: "directory", path: `${directory.replace(/\/+$/, "")}/${own}` };
  }
  const variable = `ASTACUS_${name.toUpperCase().replaceAll(/[^A-Z0-9]/g, "_")}`;
  const secret = (key: string, suffix: string): object | undefined =>
    old.take(`${path}.${key}`) === undefined ? undefined : { env: `${variable}_${suffix}` };
  const proxy = (): string | undefined => proxyOf(path, old);
  if (type === "google") {
    old.take(`${path}.project_id`);
    return {
      name,
      type: "gcs",
      bucket: old.takeText(`${path}.bucket_name`),
      prefix: own,
      credentialsFile: old.takeText(`${path}.credential_file`),
      credentials: secret("credentials", "CREDENTIALS"),
      proxy: proxy(),
    };
  }
  if (type === "azure") {
    const host = endpointOf(path, old);
    const account = old.takeText(`${path}.account_name`);
    return {
      name,
      type: "azure",
      container: old.takeText(`${path}.bucket_name`),
      prefix: own,
      account,
      // A server of one's own has the account in its path.
      endpoint: host === undefined ? undefined : `${host}/${account ?? ""}`,
      accountKey: secret("account_key", "ACCOUNT_KEY"),
      sasToken: secret("sas_token", "SAS_TOKEN"),
      proxy: proxy(),
    };
  }
  if (type !== "s3") return undefined;
  const readTimeout = old.takeText(`${path}.read_timeout`);
  return {
    name,
    type: "s3",
    bucket: old.takeText(`${path}.bucket_name`),
    prefix: own,
    region: old.takeText(`${path}.region`),
    endpoint: endpointOf(path, old),
    forcePathStyle: pathStyleOf(old.takeText(`${path}.addressing_style`)),
    accessKeyId: secret("aws_access_key_id", "ACCESS_KEY_ID"),
    secretAccessKey: secret("aws_secret_access_key", "SECRET_ACCESS_KEY"),
    sessionToken: secret("aws_session_token", "SESSION_TOKEN"),
    caFile: old.takeText(`${path}.cert_path`),
    proxy: proxy(),
    requestTimeout: readTimeout === undefined ? undefined : `${readTimeout}s`,
  };
}

function endpointOf(path: string, old: OldFile): string | undefined {
  const host = old.takeText(`${path}.host`);
  const port = old.takeText(`${path}.port`);
  const scheme = old.take(`${path}.is_secure`) === true ? "https" : "http";
  if (host === undefined) return undefined;
  return `${scheme}://${host}${port === undefined ? "" : `:${port}`}`;
}

function pathStyleOf(style: string | undefined): boolean | undefined {
  return style === "path" ? true : style === "virtual" ? false : undefined;
}

function proxyOf(path: string, old: OldFile): string | undefined {
  const host = old.takeText(`${path}.proxy_info.host`);
  const port = old.takeText(`${path}.proxy_info.port`);
  return host === undefined ? undefined : `http://${host}:${port ?? "3128"}`;
}

function convertRest(old: OldFile): Section[] {
  const retention = "coordinator.retention";
  const minimum = Number(old.take(`${retention}.minimum_backups`) ?? 3);
  const level = old.takeText("uvicorn.log_level");
  const levels: Record<string, string> = { trace: "debug", critical: "error" };
  return [
    {
      comment: "The same rules, but ages count back from the newest complete backup.",
      value: {
        retention: {
          keepDays: old.take(`${retention}.keep_days`) ?? 7,
          // The newest complete backup is never dropped.
          minimum: Math.max(1, minimum),
          maximum: old.take(`${retention}.maximum_backups`),
        },
      },
    },
    {
      comment: "",
      value: {
        backup: {
          attempts: old.take("coordinator.backup_attempts"),
          workers: old.take("node.parallel.hashes"),
        },
      },
    },
    {
      comment: "",
      value: {
        restore: {
          concurrency: old.take("node.parallel.downloads"),
          owner: old.take("node.copy_root_owner") === true ? "parent" : undefined,
        },
      },
    },
    {
      comment: "",
      value: { log: { level: level === undefined ? level : (levels[level] ?? level) } },
    },
  ];
}

function notesOnTheRest(old: OldFile): string[] {
  return old.listLeft().map((path) => {
    const parts = path.split(".");
    // Storages and statsd may stand in the coordinator's or the node's part too.
    const isNested = ["object_storage", "statsd"].includes(parts[1] ?? "");
    const why = whyGone(isNested ? parts.slice(1) : parts);
    return `\`${path}\` is gone: ${why ?? "it has no equal here"}.`;
  });
}

/** The old values, and which of them were taken. */
class OldFile {
  readonly #value: unknown;
  readonly #taken = new Set<string>();

  constructor(value: unknown) {
    this.#value = value;
  }

  /** The value at a dotted path, which counts as translated from now on. */
  take(path: string): unknown {
    this.#taken.add(path);
    return this.#at(path);
  }

  takeText(path: string): string | undefined {
    const value = this.take(path);
    return typeof value === "string" || typeof value === "number" ? String(value) : undefined;
  }

  takeList(path: string): readonly unknown[] {
    const value = this.take(path);
    return Array.isArray(value) ? value : [];
  }

  /** The section at a path, not taken; empty if there is none. */
  peek(path: string): object {
    const value = this.#at(path);
    return typeof value === "object" && value !== null ? value : {};
  }

  /** Paths of the values that nobody took; a section of lists or settings is named as one. */
  listLeft(): string[] {
    const left: string[] = [];
    const walk = (value: unknown, path: string): void => {
      if (this.#taken.has(path)) return;
      const isSection = typeof value === "object" && value !== null && !Array.isArray(value);
      const isTouched = [...this.#taken].some((taken) => taken.startsWith(`${path}.`));
      if (path !== "" && (!isSection || (!isTouched && whyGone(path.split(".")) !== undefined))) {
        left.push(path);
      } else if (isSection) {
        for (const [key, child] of Object.entries(value)) {
          walk(child, path === "" ? key : `${path}.${key}`);
        }
      }
    };
    walk(this.#value, "");
    return left;
  }

  #at(path: string): unknown {
    return valueAt(this.#value, path.split("."));
  }
}

/** What lies at a path; a storage's name may have dots in it, so a key may be several parts. */
function valueAt(value: unknown, parts: readonly string[]): unknown {
  if (parts.length === 0) return value;
  for (let length = 1; length <= parts.length; length += 1) {
    const child = childOf(value, parts.slice(0, length).join("."));
    const found = child === undefined ? undefined : valueAt(child, parts.slice(length));
    if (found !== undefined) return found;
  }
  return undefined;
}

function readOld(text: string): OldFile {
  const source = readConfigSource(text);
  const error = source.errors[0];
  if (source.value === undefined) {
    throw new AppError("config", `${error?.line}:${error?.column}: ${error?.text}.`, {
      guidance: "The file to convert is astacus.conf of the original, YAML or JSON.",
    });
  }
  if (source.value["coordinator"] === undefined && source.value["node"] === undefined) {
    throw new AppError(
      "config",
      "This is no file of the original Astacus: it has no `coordinator`.",
      {
        guidance: "A file of this Astacus begins with `cluster` and needs no conversion.",
      },
    );
  }
  return new OldFile(source.value);
}

function renderSection(section: Section): string {
  const value = withoutUndefined(section.value);
  if (Object.keys(value).length === 0) return "";
  const comment = section.comment === "" ? "" : `# ${section.comment}\n`;
  return `\n${comment}${stringify(value, { lineWidth: 0 })}`;
}

/** Without undefined values and without the sections that are empty then. */
function withoutUndefined(value: Record<string, unknown>): Record<string, unknown> {
  const entries = Object.entries(value).flatMap(([key, child]): [string, unknown][] => {
    const isSection = typeof child === "object" && child !== null && !Array.isArray(child);
    if (!isSection) return child === undefined ? [] : [[key, cleaned(child)]];
    const inner = withoutUndefined({ ...child });
    return Object.keys(inner).length === 0 ? [] : [[key, inner]];
  });
  return Object.fromEntries(entries);
}

function cleaned(value: unknown): unknown {
  if (!Array.isArray(value)) return value;
  return value.map((each: unknown) =>
    typeof each === "object" && each !== null ? withoutUndefined({ ...each }) : each,
  );
}

function hostOf(address: string): string {
  return URL.canParse(address) ? new URL(address).hostname.replaceAll(/[[\]]/g, "") : address;
}

function withPort(address: string): string {
  return /:\d+$/.test(address) ? address : `${address}:${address.startsWith("https") ? 443 : 80}`;
}
