/**
 * Builds M3's placements field by field, by the numbers that M3 uses, so that tests speak of the wire
 * and not of our schema alone. Every message may carry an invented field, as a newer M3 would.
 */
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

/** One shard; `state` as M3 numbers it: 0 initializing, 1 available, 2 leaving. */
export type WireShard = {
  readonly id: number;
  readonly state?: 0 | 1 | 2;
  readonly sourceId?: string;
  readonly cutoffNanos?: bigint;
};

/** One instance. Endpoint, hostname and group follow from the id unless they are given. */
export type WireInstance = {
  readonly id: string;
  readonly shards: readonly WireShard[];
  readonly isolationGroup?: string;
  readonly endpoint?: string;
  readonly hostname?: string;
};

/** A whole placement. */
export type WirePlacement = {
  readonly instances: readonly WireInstance[];
  readonly replicaFactor: number;
  readonly shardCount: number;
  readonly isSharded?: boolean;
  /** Text that is put into an unknown field of each message. */
  readonly invented?: string;
};

const INVENTED_FIELD = 900;

/** The bytes as M3 writes them. */
export function placementBytes(placement: WirePlacement): Uint8Array<ArrayBuffer> {
  const { invented } = placement;
  const writer = new BinaryWriter();
  for (const instance of placement.instances) {
    const value = instanceBytes(instance, invented);
    const entry = new BinaryWriter();
    entry.tag(1, WireType.LengthDelimited).string(instance.id);
    entry.tag(2, WireType.LengthDelimited).bytes(value);
    writer.tag(1, WireType.LengthDelimited).bytes(finish(entry, invented));
  }
  writer.tag(2, WireType.Varint).uint32(placement.replicaFactor);
  writer.tag(3, WireType.Varint).uint32(placement.shardCount);
  writer.tag(4, WireType.Varint).bool(placement.isSharded ?? true);
  return finish(writer, invented);
}

/** What m3aggregator keeps: placements in a list, or one that is compressed. */
export function stagedBytes(
  placements: readonly Uint8Array[],
  options: { readonly compressed?: boolean } = {},
): Uint8Array<ArrayBuffer> {
  const writer = new BinaryWriter();
  if (options.compressed === true) {
    writer.tag(2, WireType.Varint).uint32(1);
    const [latest = new Uint8Array()] = placements;
    writer.tag(3, WireType.LengthDelimited).bytes(Bun.zstdCompressSync(new Uint8Array(latest)));
  } else {
    for (const bytes of placements) writer.tag(1, WireType.LengthDelimited).bytes(bytes);
  }
  return finish(writer, undefined);
}

/** A namespace registry with these names and retention periods. */
export function namespaceBytes(
  namespaces: Readonly<Record<string, { retentionNanos: bigint; blockNanos: bigint }>>,
): Uint8Array<ArrayBuffer> {
  const writer = new BinaryWriter();
  for (const [name, { retentionNanos, blockNanos }] of Object.entries(namespaces)) {
    const retention = new BinaryWriter();
    retention
      .tag(1, WireType.Varint)
      .int64(retentionNanos)
      .tag(2, WireType.Varint)
      .int64(blockNanos);
    const index = new BinaryWriter();
    index.tag(1, WireType.Varint).bool(true).tag(2, WireType.Varint).int64(blockNanos);
    const options = new BinaryWriter();
    options.tag(3, WireType.Varint).bool(true);
    options.tag(6, WireType.LengthDelimited).bytes(retention.finish());
    options.tag(7, WireType.Varint).bool(true);
    options.tag(8, WireType.LengthDelimited).bytes(index.finish());
    const entry = new BinaryWriter();
    entry.tag(1, WireType.LengthDelimited).string(name);
    entry.tag(2, WireType.LengthDelimited).bytes(options.finish());
    writer.tag(1, WireType.LengthDelimited).bytes(entry.finish());
  }
  return finish(writer, undefined);
}

/** An even placement: instance i of n holds shard s if it is one of its next `replicaFactor` owners. */
export function evenInstances(
  ids: readonly string[],
  shardCount: number,
  replicaFactor: number,
): WireInstance[] {
  return ids.map((id, index) => ({
    id,
    shards: Array.from({ length: shardCount }, (_, shard) => shard)
      .filter((shard) => (index - (shard % ids.length) + ids.length) % ids.length < replicaFactor)
      .map((shard) => ({ id: shard })),
  }));
}

function instanceBytes(instance: WireInstance, invented: string | undefined): Uint8Array {
  const writer = new BinaryWriter();
  const text = (field: number, value: string): unknown =>
    writer.tag(field, WireType.LengthDelimited).string(value);
  text(1, instance.id);
  text(2, instance.isolationGroup ?? `group-${instance.id}`);
  text(3, "embedded");
  writer.tag(4, WireType.Varint).uint32(100);
  text(5, instance.endpoint ?? `${instance.id}.old:9000`);
  for (const shard of instance.shards) {
    writer.tag(6, WireType.LengthDelimited).bytes(shardBytes(shard, invented));
  }
  text(8, instance.hostname ?? `${instance.id}.old`);
  writer.tag(9, WireType.Varint).uint32(9000);
  const metadata = new BinaryWriter().tag(1, WireType.Varint).uint32(9004);
  writer.tag(10, WireType.LengthDelimited).bytes(finish(metadata, invented));
  return finish(writer, invented);
}

function shardBytes(shard: WireShard, invented: string | undefined): Uint8Array {
  const writer = new BinaryWriter();
  if (shard.id !== 0) writer.tag(1, WireType.Varint).uint32(shard.id);
  const state = shard.state ?? 1;
  if (state !== 0) writer.tag(2, WireType.Varint).uint32(state);
  if (shard.sourceId !== undefined) writer.tag(3, WireType.LengthDelimited).string(shard.sourceId);
  if (shard.cutoffNanos !== undefined) writer.tag(5, WireType.Varint).int64(shard.cutoffNanos);
  return finish(writer, invented);
}

function finish(writer: BinaryWriter, invented: string | undefined): Uint8Array<ArrayBuffer> {
  if (invented !== undefined) {
    writer.tag(INVENTED_FIELD, WireType.LengthDelimited).string(invented);
  }
  return new Uint8Array(writer.finish());
}
