/**
 * The product for Folio, an invented document store, as an example for whoever writes another:
 * docs/products/writing-one.md quotes it and says why. What is captured is in folio-capture.ts, its
 * checksums are in folio-seal.ts; here are the configuration, the phases and the judgement.
 */
import { z } from "zod";
import type { FileSystem } from "../../../src/base/doors.ts";
import { AppError, toAppError } from "../../../src/base/error.ts";
import { pathField } from "../../../src/base/fields.ts";
import { joinPath, textFromPath } from "../../../src/base/path.ts";
import type {
  ClusterOutcome,
  ClusterPhaseContext,
  Completeness,
  Json,
  NodePhaseContext,
  PhaseContext,
  Product,
  ProductCheck,
} from "../../../src/products/product.ts";
import { readText, replaceText } from "../../../src/products/scripted-registry.ts";
import { captureFolio, capturedVolumes, FOLIO_VOLUMES } from "./folio-capture.ts";
import { isSeal } from "./folio-seal.ts";

/** The `product` section where `type` is `folio`. */
export const folioConfigSchema = z
  .strictObject({
    type: z.literal("folio").meta({ description: "A cluster of Folio." }),
    root: pathField().meta({
      description: "Folio's data folder. `{node}` becomes the node's name.",
    }),
    registry: pathField().meta({ description: "Folio's `members.json`, which all nodes share." }),
  })
  .meta({ title: "folio" });

/** What the product is given; paths are byte strings, `{node}` replaced. */
export type FolioConfig = z.infer<typeof folioConfigSchema>;

/** Loose: a later Folio may say more, and a restore gives it back. */
const registrySchema = z.looseObject({
  version: z.int().min(1),
  members: z.record(z.string(), z.looseObject({ shards: z.array(z.int().min(0)) })),
});

type Registry = z.infer<typeof registrySchema>;

/** A cluster of Folio. */
export function createFolioProduct(config: FolioConfig): Product {
  const { root } = config;
  return {
    kind: "folio",
    scratchFolder: joinPath(root, ".astacus"),
    backupPhases: [
      { on: "cluster", name: "read-registry", run: async (context) => readBefore(config, context) },
      { on: "nodes", name: "capture", run: async (context) => captureFolio(root, context) },
      { on: "cluster", name: "read-again", run: async (context) => readAfter(config, context) },
      { on: "core", name: "store" },
    ],
    restorePhases: [
      { on: "nodes", name: "check-stopped", run: async (context) => checkStopped(root, context) },
      { on: "cluster", name: "plan-registry", run: async (context) => plan(config, context) },
      { on: "core", name: "place" },
      { on: "nodes", name: "check-again", run: async (context) => checkStopped(root, context) },
      { on: "cluster", name: "write-registry", run: async (context) => write(config, context) },
    ],
    volumes: (context) => capturedVolumes(root, context),
    targets: () =>
      FOLIO_VOLUMES.map((volume) => ({
        volume,
        root: joinPath(root, volume),
        // A log of later days would be replayed on top of what is restored.
        extra: "remove" as const,
        group: (path: string) => (isSeal(path) ? 1 : 0),
      })),
    completeness: judgeBackup,
    check: (context) => checkFolio(config, context),
  };
}

function readBefore({ registry }: FolioConfig, context: ClusterPhaseContext): ClusterOutcome {
  return { state: { registry: readRegistry(context.doors.files, registry) as Json } };
}

/** What was captured belongs to the registry that was read before: if it moved, all begins again. */
function readAfter(config: FolioConfig, context: ClusterPhaseContext): ClusterOutcome {
  const before = parseRegistry(context.state["registry"]).version;
  const after = readRegistry(context.doors.files, config.registry).version;
  if (before === after) return {};
  return { redo: "read-registry", reason: `the registry went from ${before} to ${after}` };
}

/** Whole is what the registry says, not who answered. */
function judgeBackup(context: ClusterPhaseContext, present: readonly string[]): Completeness {
  const { members } = parseRegistry(context.state["registry"]);
  const problems = Object.entries(members)
    .filter(([name, { shards }]) => shards.length > 0 && !present.includes(name))
    .map(([name, { shards }]) => `member ${name} with shards ${shards.join(", ")} is missing`);
  return { complete: problems.length === 0, problems };
}

/** Refuses a node whose Folio runs; makes the folders that files go into, with Folio's owner. */
function checkStopped(root: string, { doors: { files }, node }: NodePhaseContext): Json {
  if (files.isLocked(joinPath(root, "lock"))) {
    throw new AppError(
      "refused",
      `Folio runs on node ${node}: it holds ${textFromPath(root)}/lock.`,
      {
        guidance: "Stop it on every node that is restored; then run the restore again.",
      },
    );
  }
  const owner = files.lstat(joinPath(root, "."));
  if (owner === undefined) {
    throw new AppError("not-found", `${textFromPath(root)} does not exist on node ${node}.`, {
      guidance: "Make it, with the owner that Folio runs as, or mount its file system.",
    });
  }
  for (const volume of FOLIO_VOLUMES) {
    const folder = joinPath(root, volume);
    if (files.lstat(folder) !== undefined) continue;
    files.makeDirectory(folder, owner.mode);
    files.setOwner(folder, owner.uid, owner.gid);
  }
  return {};
}

/** The new registry, before a byte moves: each member's shards at the node that gets its files. */
function plan(config: FolioConfig, context: ClusterPhaseContext): ClusterOutcome {
  const { doors, shares = [] } = context;
  const before = parseRegistry(context.state["registry"]);
  const isThere = doors.files.lstat(config.registry) !== undefined;
  const now = isThere ? readRegistry(doors.files, config.registry) : { version: 0, members: {} };
  const members: Registry["members"] = {};
  for (const { from, to } of shares) {
    const member = before.members[from];
    if (member !== undefined) members[to] = member;
  }
  if (context.restore?.isPartial === true) {
    mustOwn(now.members, members);
    return {};
  }
  const lost = Object.keys(before.members).filter(
    (name) => !shares.some(({ from }) => from === name),
  );
  if (lost.length > 0)
    context.say(`The backup has no share of ${lost.join(", ")}: shards are lost.`);
  // Folio believes the highest version: it must be above the one that is there, too.
  const version = Math.max(before.version, now.version) + 1;
  return { state: { plan: { ...before, version, members } as Json } };
}

/** A part leaves the registry alone; Folio would delete what the registry does not give to a node. */
function mustOwn(now: Registry["members"], wanted: Registry["members"]): void {
  for (const [node, { shards }] of Object.entries(wanted)) {
    const lost = shards.filter((shard) => now[node]?.shards.includes(shard) !== true);
    if (lost.length === 0) continue;
    throw new AppError(
      "refused",
      `Folio's registry does not give ${node} the shards ${lost.join(", ")}.`,
      {
        guidance: "Restore all nodes, or mend the registry first.",
      },
    );
  }
}

/** Last of all: a node that starts too early owns nothing that is half there. */
function write(config: FolioConfig, context: ClusterPhaseContext): ClusterOutcome {
  if (context.restore?.isPartial === true) return {};
  const { plan: planned } = context.state;
  replaceText(context.doors.files, config.registry, JSON.stringify(parseRegistry(planned)));
  return {};
}

function readRegistry(files: FileSystem, path: string): Registry {
  return parseRegistry(JSON.parse(readText(files, path)));
}

function parseRegistry(value: unknown): Registry {
  const parsed = registrySchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new AppError("damaged", `This is no registry: ${z.prettifyError(parsed.error)}`, {
    guidance: "Look at Folio's members.json, or choose another backup.",
  });
}

/** Does what backups will do; a name in a list proves nothing. */
function checkFolio(config: FolioConfig, { doors }: PhaseContext): readonly ProductCheck[] {
  const { files, random } = doors;
  const tryIt = (what: string, success: string, attempt: () => void): ProductCheck => {
    try {
      attempt();
      return { what, ok: true, message: success };
    } catch (thrown) {
      const { message, guidance } = toAppError(thrown);
      return { what, ok: false, message, ...(guidance === undefined ? {} : { guidance }) };
    }
  };
  return [
    tryIt(`Folio's files in ${textFromPath(config.root)}`, "can be listed and linked", () => {
      const folder = joinPath(config.root, "wal");
      const probe = joinPath(
        config.root,
        `.astacus-${Buffer.from(random.bytes(6)).toString("hex")}`,
      );
      const [log] = files.readDirectory(folder);
      if (log === undefined)
        throw new AppError("not-found", "There is no log: has Folio run here?");
      files.link(joinPath(folder, log), probe);
      files.unlink(probe);
    }),
    tryIt(`Folio's registry ${textFromPath(config.registry)}`, "can be read", () =>
      readRegistry(files, config.registry),
    ),
  ];
}
