/** The messages of placement.proto. Generated (scripts/generate-proto.ts); not edited by hand. */
// The messages of M3's placements, by their field numbers on the wire (M3 1.5 and newer). Names are
// ours. Fields that are not listed here are kept as unknown ones when a message is written again.

import type { GenEnum, GenFile, GenMessage } from "@bufbuild/protobuf/codegenv2";
import { enumDesc, fileDesc, messageDesc } from "@bufbuild/protobuf/codegenv2";
import type { Message } from "@bufbuild/protobuf";

/**
 * Describes the file placement.proto.
 */
export const file_placement: GenFile =
  /*@__PURE__*/
  fileDesc(
    "Cg9wbGFjZW1lbnQucHJvdG8SCmFzdGFjdXMubTMi+wEKCVBsYWNlbWVudBIsCglpbnN0YW5jZXMYASADKAsyGS5hc3RhY3VzLm0zLkluc3RhbmNlRW50cnkSFgoOcmVwbGljYV9mYWN0b3IYAiABKA0SEwoLc2hhcmRfY291bnQYAyABKA0SEgoKaXNfc2hhcmRlZBgEIAEoCBIVCg1jdXRvdmVyX25hbm9zGAUgASgDEhMKC2lzX21pcnJvcmVkGAYgASgIEhgKEHNoYXJkX3NldF9pZF9tYXgYByABKA0SFwoPaXNfc3ViY2x1c3RlcmVkGAggASgIEiAKGGluc3RhbmNlc19wZXJfc3ViY2x1c3RlchgJIAEoDSJBCg1JbnN0YW5jZUVudHJ5EgsKA2tleRgBIAEoCRIjCgV2YWx1ZRgCIAEoCzIULmFzdGFjdXMubTMuSW5zdGFuY2Ui/wEKCEluc3RhbmNlEgoKAmlkGAEgASgJEhcKD2lzb2xhdGlvbl9ncm91cBgCIAEoCRIMCgR6b25lGAMgASgJEg4KBndlaWdodBgEIAEoDRIQCghlbmRwb2ludBgFIAEoCRIhCgZzaGFyZHMYBiADKAsyES5hc3RhY3VzLm0zLlNoYXJkEhQKDHNoYXJkX3NldF9pZBgHIAEoDRIQCghob3N0bmFtZRgIIAEoCRIMCgRwb3J0GAkgASgNEi4KCG1ldGFkYXRhGAogASgLMhwuYXN0YWN1cy5tMy5JbnN0YW5jZU1ldGFkYXRhEhUKDXN1YmNsdXN0ZXJfaWQYCyABKA0iJgoQSW5zdGFuY2VNZXRhZGF0YRISCgpkZWJ1Z19wb3J0GAEgASgNIqsBCgVTaGFyZBIKCgJpZBgBIAEoDRIlCgVzdGF0ZRgCIAEoDjIWLmFzdGFjdXMubTMuU2hhcmRTdGF0ZRIRCglzb3VyY2VfaWQYAyABKAkSFQoNY3V0b3Zlcl9uYW5vcxgEIAEoAxIUCgxjdXRvZmZfbmFub3MYBSABKAMSLwoLcmVkaXJlY3RfdG8YBiABKAsyGi5hc3RhY3VzLm0zLlJlZGlyZWN0VGFyZ2V0Ih8KDlJlZGlyZWN0VGFyZ2V0Eg0KBXZhbHVlGAEgASgNIooBCg9TdGFnZWRQbGFjZW1lbnQSKAoJc25hcHNob3RzGAEgAygLMhUuYXN0YWN1cy5tMy5QbGFjZW1lbnQSLwoNY29tcHJlc3NfbW9kZRgCIAEoDjIYLmFzdGFjdXMubTMuQ29tcHJlc3NNb2RlEhwKFGNvbXByZXNzZWRfcGxhY2VtZW50GAMgASgMKl4KClNoYXJkU3RhdGUSHAoYU0hBUkRfU1RBVEVfSU5JVElBTElaSU5HEAASGQoVU0hBUkRfU1RBVEVfQVZBSUxBQkxFEAESFwoTU0hBUkRfU1RBVEVfTEVBVklORxACKj4KDENvbXByZXNzTW9kZRIWChJDT01QUkVTU19NT0RFX05PTkUQABIWChJDT01QUkVTU19NT0RFX1pTVEQQAWIGcHJvdG8z",
  );

/**
 * Which instance holds which shards.
 *
 * @generated from message astacus.m3.Placement
 */
export type Placement = Message<"astacus.m3.Placement"> & {
  /**
   * On the wire a map is a list of entries; as a list it keeps its order and shows double keys.
   *
   * @generated from field: repeated astacus.m3.InstanceEntry instances = 1;
   */
  instances: InstanceEntry[];

  /**
   * @generated from field: uint32 replica_factor = 2;
   */
  replicaFactor: number;

  /**
   * @generated from field: uint32 shard_count = 3;
   */
  shardCount: number;

  /**
   * @generated from field: bool is_sharded = 4;
   */
  isSharded: boolean;

  /**
   * @generated from field: int64 cutover_nanos = 5;
   */
  cutoverNanos: bigint;

  /**
   * @generated from field: bool is_mirrored = 6;
   */
  isMirrored: boolean;

  /**
   * @generated from field: uint32 shard_set_id_max = 7;
   */
  shardSetIdMax: number;

  /**
   * @generated from field: bool is_subclustered = 8;
   */
  isSubclustered: boolean;

  /**
   * @generated from field: uint32 instances_per_subcluster = 9;
   */
  instancesPerSubcluster: number;
};

/**
 * Describes the message astacus.m3.Placement.
 * Use `create(PlacementSchema)` to create a new message.
 */
export const PlacementSchema: GenMessage<Placement> = /*@__PURE__*/ messageDesc(file_placement, 0);

/**
 * @generated from message astacus.m3.InstanceEntry
 */
export type InstanceEntry = Message<"astacus.m3.InstanceEntry"> & {
  /**
   * @generated from field: string key = 1;
   */
  key: string;

  /**
   * @generated from field: astacus.m3.Instance value = 2;
   */
  value?: Instance | undefined;
};

/**
 * Describes the message astacus.m3.InstanceEntry.
 * Use `create(InstanceEntrySchema)` to create a new message.
 */
export const InstanceEntrySchema: GenMessage<InstanceEntry> =
  /*@__PURE__*/
  messageDesc(file_placement, 1);

/**
 * @generated from message astacus.m3.Instance
 */
export type Instance = Message<"astacus.m3.Instance"> & {
  /**
   * @generated from field: string id = 1;
   */
  id: string;

  /**
   * @generated from field: string isolation_group = 2;
   */
  isolationGroup: string;

  /**
   * @generated from field: string zone = 3;
   */
  zone: string;

  /**
   * @generated from field: uint32 weight = 4;
   */
  weight: number;

  /**
   * @generated from field: string endpoint = 5;
   */
  endpoint: string;

  /**
   * @generated from field: repeated astacus.m3.Shard shards = 6;
   */
  shards: Shard[];

  /**
   * @generated from field: uint32 shard_set_id = 7;
   */
  shardSetId: number;

  /**
   * @generated from field: string hostname = 8;
   */
  hostname: string;

  /**
   * @generated from field: uint32 port = 9;
   */
  port: number;

  /**
   * @generated from field: astacus.m3.InstanceMetadata metadata = 10;
   */
  metadata?: InstanceMetadata | undefined;

  /**
   * @generated from field: uint32 subcluster_id = 11;
   */
  subclusterId: number;
};

/**
 * Describes the message astacus.m3.Instance.
 * Use `create(InstanceSchema)` to create a new message.
 */
export const InstanceSchema: GenMessage<Instance> = /*@__PURE__*/ messageDesc(file_placement, 2);

/**
 * @generated from message astacus.m3.InstanceMetadata
 */
export type InstanceMetadata = Message<"astacus.m3.InstanceMetadata"> & {
  /**
   * @generated from field: uint32 debug_port = 1;
   */
  debugPort: number;
};

/**
 * Describes the message astacus.m3.InstanceMetadata.
 * Use `create(InstanceMetadataSchema)` to create a new message.
 */
export const InstanceMetadataSchema: GenMessage<InstanceMetadata> =
  /*@__PURE__*/
  messageDesc(file_placement, 3);

/**
 * @generated from message astacus.m3.Shard
 */
export type Shard = Message<"astacus.m3.Shard"> & {
  /**
   * @generated from field: uint32 id = 1;
   */
  id: number;

  /**
   * @generated from field: astacus.m3.ShardState state = 2;
   */
  state: ShardState;

  /**
   * The instance that still has the shard's data while this one is initializing.
   *
   * @generated from field: string source_id = 3;
   */
  sourceId: string;

  /**
   * @generated from field: int64 cutover_nanos = 4;
   */
  cutoverNanos: bigint;

  /**
   * @generated from field: int64 cutoff_nanos = 5;
   */
  cutoffNanos: bigint;

  /**
   * @generated from field: astacus.m3.RedirectTarget redirect_to = 6;
   */
  redirectTo?: RedirectTarget | undefined;
};

/**
 * Describes the message astacus.m3.Shard.
 * Use `create(ShardSchema)` to create a new message.
 */
export const ShardSchema: GenMessage<Shard> = /*@__PURE__*/ messageDesc(file_placement, 4);

/**
 * @generated from message astacus.m3.RedirectTarget
 */
export type RedirectTarget = Message<"astacus.m3.RedirectTarget"> & {
  /**
   * @generated from field: uint32 value = 1;
   */
  value: number;
};

/**
 * Describes the message astacus.m3.RedirectTarget.
 * Use `create(RedirectTargetSchema)` to create a new message.
 */
export const RedirectTargetSchema: GenMessage<RedirectTarget> =
  /*@__PURE__*/
  messageDesc(file_placement, 5);

/**
 * How m3aggregator keeps its placement.
 *
 * @generated from message astacus.m3.StagedPlacement
 */
export type StagedPlacement = Message<"astacus.m3.StagedPlacement"> & {
  /**
   * @generated from field: repeated astacus.m3.Placement snapshots = 1;
   */
  snapshots: Placement[];

  /**
   * @generated from field: astacus.m3.CompressMode compress_mode = 2;
   */
  compressMode: CompressMode;

  /**
   * One Placement, compressed.
   *
   * @generated from field: bytes compressed_placement = 3;
   */
  compressedPlacement: Uint8Array;
};

/**
 * Describes the message astacus.m3.StagedPlacement.
 * Use `create(StagedPlacementSchema)` to create a new message.
 */
export const StagedPlacementSchema: GenMessage<StagedPlacement> =
  /*@__PURE__*/
  messageDesc(file_placement, 6);

/**
 * @generated from enum astacus.m3.ShardState
 */
export enum ShardState {
  /**
   * @generated from enum value: SHARD_STATE_INITIALIZING = 0;
   */
  INITIALIZING = 0,

  /**
   * @generated from enum value: SHARD_STATE_AVAILABLE = 1;
   */
  AVAILABLE = 1,

  /**
   * @generated from enum value: SHARD_STATE_LEAVING = 2;
   */
  LEAVING = 2,
}

/**
 * Describes the enum astacus.m3.ShardState.
 */
export const ShardStateSchema: GenEnum<ShardState> = /*@__PURE__*/ enumDesc(file_placement, 0);

/**
 * @generated from enum astacus.m3.CompressMode
 */
export enum CompressMode {
  /**
   * @generated from enum value: COMPRESS_MODE_NONE = 0;
   */
  NONE = 0,

  /**
   * @generated from enum value: COMPRESS_MODE_ZSTD = 1;
   */
  ZSTD = 1,
}

/**
 * Describes the enum astacus.m3.CompressMode.
 */
export const CompressModeSchema: GenEnum<CompressMode> = /*@__PURE__*/ enumDesc(file_placement, 1);
