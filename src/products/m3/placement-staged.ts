/**
 * The placements beside the database's: m3coordinator's is a plain one without shards, m3aggregator's
 * is staged (a list of placements, or one that is compressed). Only names and addresses are changed;
 * a value in which no mapped instance stands is kept byte for byte.
 */
import assert from "node:assert/strict";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { AppError } from "../../base/error.ts";
import { renameInstances } from "./placement-map.ts";
import type { InstanceMapping } from "./placement-map.ts";
import { decodePlacement, encodePlacement, instancesOf, shapeProblem } from "./placement.ts";
import { CompressMode, StagedPlacementSchema } from "./proto/placement.pb.ts";
import type { Placement, StagedPlacement } from "./proto/placement.pb.ts";

/** The value of a placement key, told apart by what is in it; `other` is what we cannot read. */
export type AnyPlacement =
  | { readonly kind: "plain"; readonly placement: Placement }
  | { readonly kind: "staged"; readonly staged: StagedPlacement; readonly placements: Placement[] }
  | { readonly kind: "other"; readonly reason: string };

/** Reads a value that may be a plain or a staged placement. Never throws for what the value says. */
export function readAnyPlacement(bytes: Uint8Array): AnyPlacement {
  const plain = attempt(() => soundShape(decodePlacement(bytes)));
  if (plain.ok) return { kind: "plain", placement: plain.value };
  const staged = attempt(() => fromBinary(StagedPlacementSchema, bytes));
  if (!staged.ok) return { kind: "other", reason: staged.reason };
  const placements = attempt(() => placementsOf(staged.value).map(soundShape));
  if (!placements.ok) return { kind: "other", reason: placements.reason };
  return { kind: "staged", staged: staged.value, placements: placements.value };
}

/** How the nodes move, for placements beside the database's. */
export type NodeMoves = {
  readonly instances: readonly InstanceMapping[];
  /** Old host to new host, where each has one: other services run on the same machines. */
  readonly hosts: ReadonlyMap<string, string>;
};

/**
 * The value for other nodes: an instance whose id or host is moved gets its new name, and its new host
 * with its own port. Unchanged bytes where none is; refused where the value cannot be read and may
 * name one.
 */
export function mapAnyPlacement(
  bytes: Uint8Array,
  options: NodeMoves & { readonly key: string },
): Uint8Array {
  const read = readAnyPlacement(bytes);
  switch (read.kind) {
    case "plain": {
      const moved = moveInstances(read.placement, options);
      return moved === undefined ? bytes : encodePlacement(moved);
    }
    case "staged":
      return mapStaged(bytes, read, options);
    case "other": {
      const named = namedInside(bytes, options);
      if (named === undefined) return bytes;
      throw new AppError("refused", `${options.key} names ${named} and cannot be rewritten.`, {
        guidance: "Leave this key out of the restore, and make it anew with M3's own tools.",
        context: { key: options.key, reason: read.reason },
      });
    }
  }
}

function mapStaged(
  bytes: Uint8Array,
  read: { readonly staged: StagedPlacement; readonly placements: readonly Placement[] },
  moves: NodeMoves,
): Uint8Array {
  const moved = read.placements.map((placement) => moveInstances(placement, moves));
  if (moved.every((placement) => placement === undefined)) return bytes;
  const { staged } = read;
  const all = read.placements.map((placement, index) => moved[index] ?? placement);
  if (staged.compressMode === CompressMode.NONE) staged.snapshots = all;
  else {
    const [latest] = all;
    assert(latest !== undefined);
    staged.compressedPlacement = new Uint8Array(Bun.zstdCompressSync(encodePlacement(latest)));
  }
  return toBinary(StagedPlacementSchema, staged);
}

/** The placement with its moved instances; undefined if it has none of them. */
function moveInstances(placement: Placement, moves: NodeMoves): Placement | undefined {
  const targets = new Map(moves.instances.map(({ from, to }) => [from, to]));
  const mappings = instancesOf(placement).flatMap((instance): InstanceMapping[] => {
    const target = targets.get(instance.id);
    const zone = target?.zone ?? instance.zone;
    const [host, port] = splitEndpoint(instance.endpoint);
    const newHost = moves.hosts.get(host) ?? hostOf(target) ?? host;
    const hostname = moves.hosts.get(instance.hostname) ?? target?.hostname ?? instance.hostname;
    const endpoint = host === "" ? instance.endpoint : newHost + port;
    // m3aggregator is often named by its address.
    const isAddress = instance.id === instance.endpoint;
    const id = target?.id ?? (isAddress ? endpoint : instance.id);
    const isSame =
      id === instance.id &&
      zone === instance.zone &&
      endpoint === instance.endpoint &&
      hostname === instance.hostname;
    return isSame ? [] : [{ from: instance.id, to: { id, zone, endpoint, hostname } }];
  });
  return mappings.length === 0 ? undefined : renameInstances(placement, mappings);
}

/** Host, and the rest with its colon; an address of IPv6 keeps its brackets. */
export function splitEndpoint(endpoint: string): readonly [host: string, rest: string] {
  const colon = endpoint.lastIndexOf(":");
  return colon < 0 ? [endpoint, ""] : [endpoint.slice(0, colon), endpoint.slice(colon)];
}

function hostOf(target: InstanceMapping["to"] | undefined): string | undefined {
  return target?.endpoint === undefined ? target?.hostname : splitEndpoint(target.endpoint)[0];
}

function namedInside(bytes: Uint8Array, moves: NodeMoves): string | undefined {
  const text = Buffer.from(bytes).toString();
  const ids = moves.instances.filter(({ from, to }) => from !== to.id).map(({ from }) => from);
  const hosts = [...moves.hosts].filter(([from, to]) => from !== to).map(([from]) => from);
  return [...ids, ...hosts].find((name) => text.includes(name));
}

function placementsOf(staged: StagedPlacement): Placement[] {
  if (staged.compressMode === CompressMode.NONE) {
    if (staged.snapshots.length === 0) throw new AppError("damaged", "no placement in it");
    return staged.snapshots;
  }
  if (staged.compressMode !== CompressMode.ZSTD) {
    throw new AppError("damaged", `unknown compression ${String(staged.compressMode)}`);
  }
  return [decodePlacement(new Uint8Array(Bun.zstdDecompressSync(staged.compressedPlacement)))];
}

function soundShape(placement: Placement): Placement {
  const problem = shapeProblem(placement);
  if (problem !== undefined) throw new AppError("damaged", problem);
  return placement;
}

type Attempt<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly reason: string };

function attempt<Value>(read: () => Value): Attempt<Value> {
  try {
    return { ok: true, value: read() };
  } catch (thrown) {
    return { ok: false, reason: thrown instanceof Error ? thrown.message : String(thrown) };
  }
}
