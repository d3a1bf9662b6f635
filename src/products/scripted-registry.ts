/**
 * What the toy database knows of itself as a cluster: a registry of its members in one JSON file
 * (a toy of etcd), and the settings of the `scripted` product. The registry is read before and after
 * a capture; whoever is in it must have stored a share, or the backup is not complete.
 */
import { z } from "zod";
import type { FileSystem } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { replaceFile } from "../base/folders.ts";
import { joinPath, pathFromText, textFromPath } from "../base/path.ts";
import type { Json } from "./product.ts";
import type { ScriptedConfig } from "./scripted-config.ts";

/** What the toy wants to be told; the `settings` of its configuration. */
const settingsSchema = z.strictObject({
  /** The registry's file; `registry.json` below the root, unless it lies elsewhere. */
  registry: z.string().min(1).optional(),
  /** What a restore does to a toy that runs. */
  whenRunning: z.enum(["refuse", "stop"]).default("refuse"),
  /** How often a capture begins again before the phase fails. */
  captureTries: z.int().min(1).max(1000).default(20),
});

/** The settings, checked; `registry` is a byte string. */
export type ScriptedSettings = {
  readonly registry: string;
  readonly whenRunning: "refuse" | "stop";
  readonly captureTries: number;
};

const registrySchema = z.strictObject({
  revision: z.int().min(0),
  members: z.record(z.string(), z.strictObject({ shards: z.array(z.int().min(0)) })),
});

/** The members of the toy's cluster and the shards that each one holds. */
export type Registry = z.infer<typeof registrySchema>;

/** Larger registries are refused. */
const REGISTRY_SIZE_BYTES_MAX = 1024 * 1024;

/** The settings of a configuration; throws AppError `config`. */
export function parseScriptedSettings(config: ScriptedConfig): ScriptedSettings {
  const parsed = settingsSchema.safeParse(config.settings);
  if (!parsed.success) {
    throw new AppError("config", `product.settings: ${z.prettifyError(parsed.error)}`, {
      guidance: "The toy takes `registry`, `whenRunning` (refuse, stop) and `captureTries`.",
    });
  }
  const { registry, whenRunning, captureTries } = parsed.data;
  return {
    registry:
      registry === undefined ? joinPath(config.root, "registry.json") : pathFromText(registry),
    whenRunning,
    captureTries,
  };
}

/** Reads the registry's file. */
export function readRegistry(files: FileSystem, path: string): Registry {
  if (files.lstat(path) === undefined) {
    throw new AppError("not-found", `The toy's registry ${textFromPath(path)} does not exist.`, {
      guidance: "Start the toy once, or mend product.settings.registry.",
    });
  }
  return parseRegistry(JSON.parse(readText(files, path)));
}

/** A registry out of unknown JSON, of a file or of a manifest. */
export function parseRegistry(value: unknown): Registry {
  const parsed = registrySchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new AppError("damaged", `This is no registry: ${z.prettifyError(parsed.error)}`, {
    guidance: "Look at the toy's registry, or choose another backup.",
  });
}

/** Writes a registry; readers see the old one or the new one, though all nodes write it at once. */
export function writeRegistry(
  files: FileSystem,
  path: string,
  registry: Registry,
  options: { readonly node: string },
): void {
  replaceText(files, path, JSON.stringify(registry), { temporary: `${path}.${options.node}` });
}

/** True if both say the same. */
export function isSameRegistry(a: Registry, b: Registry): boolean {
  return canonical(a) === canonical(b);
}

/** What each member is told before a capture: its shards. */
export function shardInputs(registry: Registry): { readonly [node: string]: Json } {
  return Object.fromEntries(
    Object.entries(registry.members).map(([node, { shards }]) => [node, { shards }]),
  );
}

/** The registry of a restored cluster: each share's shards at the node that the share went to. */
export function movedRegistry(
  registry: Registry,
  shares: readonly { readonly from: string; readonly to: string }[],
): Registry {
  const members: Registry["members"] = {};
  for (const [name, member] of Object.entries(registry.members)) {
    const target = shares.find(({ from }) => from === name)?.to ?? name;
    members[target] = member;
  }
  return { revision: registry.revision + 1, members };
}

/** Puts a small text in place. */
export function replaceText(
  files: FileSystem,
  path: string,
  text: string,
  options: { readonly temporary?: string } = {},
): void {
  replaceFile(files, path, new TextEncoder().encode(text), options);
}

/** A small file as text. */
export function readText(files: FileSystem, path: string): string {
  const handle = files.open(path, "r");
  try {
    const { sizeBytes } = files.stat(handle);
    if (sizeBytes > REGISTRY_SIZE_BYTES_MAX) {
      throw new AppError("damaged", `${textFromPath(path)} is far too large.`);
    }
    const bytes = new Uint8Array(sizeBytes);
    const count = files.read(handle, bytes, 0);
    return new TextDecoder().decode(bytes.subarray(0, count));
  } finally {
    files.close(handle);
  }
}

function canonical(registry: Registry): string {
  const members = Object.entries(registry.members).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([registry.revision, members]);
}
