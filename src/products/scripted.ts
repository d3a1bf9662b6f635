/**
 * The product of the toy database: one of each shape that real databases ask of the interface, and
 * small enough to be driven through every fault. A log life cycle whose files supersede each other
 * while they are captured; cluster state that is read before and after, with inputs per node; and a
 * restore that refuses a running database, places checkpoints last and starts it again.
 */
import { AppError, toAppError } from "../base/error.ts";
import { joinPath, textFromPath } from "../base/path.ts";
import type {
  ClusterOutcome,
  ClusterPhaseContext,
  Completeness,
  Json,
  NodePhaseContext,
  Phase,
  PhaseContext,
  Product,
  ProductCheck,
} from "./product.ts";
import type { ScriptedConfig } from "./scripted-config.ts";
import {
  capture,
  capturedVolumes,
  dropCapture,
  isCheckpoint,
  TOY_GROUPS,
} from "./scripted-capture.ts";
import type { ScriptedSettings } from "./scripted-registry.ts";
import {
  isSameRegistry,
  movedRegistry,
  parseRegistry,
  parseScriptedSettings,
  readRegistry,
  replaceText,
  shardInputs,
  writeRegistry,
} from "./scripted-registry.ts";

/** The toy's marker file, below its root: it is there while the toy runs. */
export const RUNNING_MARKER = "running";

type Toy = { readonly root: string; readonly settings: ScriptedSettings };

/** The toy database. */
export function createScriptedProduct(config: ScriptedConfig): Product {
  const toy: Toy = { root: config.root, settings: parseScriptedSettings(config) };
  return {
    kind: "scripted",
    backupPhases: backupPhases(toy),
    restorePhases: restorePhases(toy),
    volumes: (context) => capturedVolumes(toy.root, context),
    targets: () =>
      TOY_GROUPS.map((volume) => ({
        volume,
        root: joinPath(toy.root, volume),
        // A log that the backup does not hold would be replayed on top of it.
        extra: "remove" as const,
        group: (path: string) => (isCheckpoint(path) ? 1 : 0),
      })),
    completeness: judge,
    check: (context) => checkToy(toy, context),
  };
}

function backupPhases(toy: Toy): Phase[] {
  const { root, settings } = toy;
  return [
    { on: "cluster", name: "read-registry", run: async (context) => readBefore(toy, context) },
    {
      on: "nodes",
      name: "capture",
      run: async (context) => ({
        captured: capture(root, settings.captureTries, context),
        shards: shardsOfInput(context.input),
      }),
    },
    { on: "cluster", name: "read-registry-again", run: async (context) => readAfter(toy, context) },
    { on: "core", name: "store" },
    {
      on: "nodes",
      name: "release",
      always: true,
      run: async (context) => {
        dropCapture(context);
        return {};
      },
    },
  ];
}

function restorePhases(toy: Toy): Phase[] {
  return [
    {
      on: "nodes",
      name: "stop",
      run: async (context) => {
        stop(toy, context);
        return {};
      },
    },
    {
      on: "cluster",
      name: "plan-registry",
      run: async (context) => {
        const before = parseRegistry(context.state["registry"]);
        const registry = movedRegistry(before, context.shares ?? []);
        return { state: { registry }, inputs: { "*": registry } };
      },
    },
    { on: "core", name: "place" },
    {
      on: "nodes",
      name: "start",
      run: async (context) => {
        start(toy, context);
        return {};
      },
    },
  ];
}

function readBefore(toy: Toy, context: ClusterPhaseContext): ClusterOutcome {
  const registry = readRegistry(context.doors.files, toy.settings.registry);
  return { state: { registry }, inputs: shardInputs(registry) };
}

/** What was captured belongs to the registry that was read before: if it moved, all begins again. */
function readAfter(toy: Toy, context: ClusterPhaseContext): ClusterOutcome {
  const before = parseRegistry(context.state["registry"]);
  const after = readRegistry(context.doors.files, toy.settings.registry);
  if (isSameRegistry(before, after)) return {};
  const reason = `the registry moved from revision ${before.revision} to ${after.revision}`;
  return { redo: "read-registry", reason };
}

/** Whole is what the registry says, not who happened to answer. */
function judge(context: ClusterPhaseContext, present: readonly string[]): Completeness {
  const { members } = parseRegistry(context.state["registry"]);
  const problems: string[] = [];
  for (const [name, { shards }] of Object.entries(members)) {
    if (!present.includes(name)) {
      problems.push(`member ${name} of the registry, with shards ${shards.join(", ")}, is missing`);
    }
  }
  return { complete: problems.length === 0, problems };
}

function stop(toy: Toy, context: NodePhaseContext): void {
  const { files } = context.doors;
  const marker = joinPath(toy.root, RUNNING_MARKER);
  if (files.lstat(marker) !== undefined) {
    if (toy.settings.whenRunning === "refuse") {
      throw new AppError("refused", `The toy runs on node ${context.node}.`, {
        guidance: `Stop it first; then ${textFromPath(marker)} is gone.`,
      });
    }
    files.unlink(marker);
  }
  if (files.lstat(toy.root) === undefined) files.makeDirectory(toy.root);
  for (const group of TOY_GROUPS) {
    const folder = joinPath(toy.root, group);
    if (files.lstat(folder) === undefined) files.makeDirectory(folder);
  }
}

function start(toy: Toy, context: NodePhaseContext): void {
  const { files } = context.doors;
  const registry = parseRegistry(context.input);
  writeRegistry(files, toy.settings.registry, registry, { node: context.node });
  replaceText(files, joinPath(toy.root, RUNNING_MARKER), context.node);
}

function shardsOfInput(input: Json): Json {
  const isObject = typeof input === "object" && input !== null && "shards" in input;
  return isObject ? (input["shards"] ?? []) : [];
}

/** A link from the data into the place of captures is what every backup needs. */
function checkToy(toy: Toy, context: PhaseContext): readonly ProductCheck[] {
  const what = `toy at ${textFromPath(toy.root)}`;
  try {
    for (const group of TOY_GROUPS) context.doors.files.readDirectory(joinPath(toy.root, group));
    readRegistry(context.doors.files, toy.settings.registry);
    return [{ what, ok: true, message: "can be read" }];
  } catch (thrown) {
    const { message, guidance } = toAppError(thrown);
    return [{ what, ok: false, message, ...(guidance === undefined ? {} : { guidance }) }];
  }
}
