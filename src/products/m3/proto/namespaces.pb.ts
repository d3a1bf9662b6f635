/** The messages of namespaces.proto. Generated (scripts/generate-proto.ts); not edited by hand. */
// What a backup needs to know of M3's namespaces, by field numbers on the wire (M3 1.5). Only read:
// the registry itself is kept and written back byte for byte.

import type { GenFile, GenMessage } from "@bufbuild/protobuf/codegenv2";
import { fileDesc, messageDesc } from "@bufbuild/protobuf/codegenv2";
import type { Message } from "@bufbuild/protobuf";

/**
 * Describes the file namespaces.proto.
 */
export const file_namespaces: GenFile =
  /*@__PURE__*/
  fileDesc(
    "ChBuYW1lc3BhY2VzLnByb3RvEgphc3RhY3VzLm0zIkMKEU5hbWVzcGFjZVJlZ2lzdHJ5Ei4KCm5hbWVzcGFjZXMYASADKAsyGi5hc3RhY3VzLm0zLk5hbWVzcGFjZUVudHJ5IkoKDk5hbWVzcGFjZUVudHJ5EgsKA2tleRgBIAEoCRIrCgV2YWx1ZRgCIAEoCzIcLmFzdGFjdXMubTMuTmFtZXNwYWNlT3B0aW9ucyKkAgoQTmFtZXNwYWNlT3B0aW9ucxIZChFib290c3RyYXBfZW5hYmxlZBgBIAEoCBIVCg1mbHVzaF9lbmFibGVkGAIgASgIEhwKFHdyaXRlc190b19jb21taXRfbG9nGAMgASgIEhcKD2NsZWFudXBfZW5hYmxlZBgEIAEoCBIWCg5yZXBhaXJfZW5hYmxlZBgFIAEoCBIvCglyZXRlbnRpb24YBiABKAsyHC5hc3RhY3VzLm0zLlJldGVudGlvbk9wdGlvbnMSGAoQc25hcHNob3RfZW5hYmxlZBgHIAEoCBInCgVpbmRleBgIIAEoCzIYLmFzdGFjdXMubTMuSW5kZXhPcHRpb25zEhsKE2NvbGRfd3JpdGVzX2VuYWJsZWQYCiABKAgiqwEKEFJldGVudGlvbk9wdGlvbnMSHgoWcmV0ZW50aW9uX3BlcmlvZF9uYW5vcxgBIAEoAxIYChBibG9ja19zaXplX25hbm9zGAIgASgDEhsKE2J1ZmZlcl9mdXR1cmVfbmFub3MYAyABKAMSGQoRYnVmZmVyX3Bhc3RfbmFub3MYBCABKAMSJQodZnV0dXJlX3JldGVudGlvbl9wZXJpb2RfbmFub3MYByABKAMiOQoMSW5kZXhPcHRpb25zEg8KB2VuYWJsZWQYASABKAgSGAoQYmxvY2tfc2l6ZV9uYW5vcxgCIAEoA2IGcHJvdG8z",
  );

/**
 * @generated from message astacus.m3.NamespaceRegistry
 */
export type NamespaceRegistry = Message<"astacus.m3.NamespaceRegistry"> & {
  /**
   * @generated from field: repeated astacus.m3.NamespaceEntry namespaces = 1;
   */
  namespaces: NamespaceEntry[];
};

/**
 * Describes the message astacus.m3.NamespaceRegistry.
 * Use `create(NamespaceRegistrySchema)` to create a new message.
 */
export const NamespaceRegistrySchema: GenMessage<NamespaceRegistry> =
  /*@__PURE__*/
  messageDesc(file_namespaces, 0);

/**
 * @generated from message astacus.m3.NamespaceEntry
 */
export type NamespaceEntry = Message<"astacus.m3.NamespaceEntry"> & {
  /**
   * @generated from field: string key = 1;
   */
  key: string;

  /**
   * @generated from field: astacus.m3.NamespaceOptions value = 2;
   */
  value?: NamespaceOptions | undefined;
};

/**
 * Describes the message astacus.m3.NamespaceEntry.
 * Use `create(NamespaceEntrySchema)` to create a new message.
 */
export const NamespaceEntrySchema: GenMessage<NamespaceEntry> =
  /*@__PURE__*/
  messageDesc(file_namespaces, 1);

/**
 * @generated from message astacus.m3.NamespaceOptions
 */
export type NamespaceOptions = Message<"astacus.m3.NamespaceOptions"> & {
  /**
   * @generated from field: bool bootstrap_enabled = 1;
   */
  bootstrapEnabled: boolean;

  /**
   * @generated from field: bool flush_enabled = 2;
   */
  flushEnabled: boolean;

  /**
   * @generated from field: bool writes_to_commit_log = 3;
   */
  writesToCommitLog: boolean;

  /**
   * @generated from field: bool cleanup_enabled = 4;
   */
  cleanupEnabled: boolean;

  /**
   * @generated from field: bool repair_enabled = 5;
   */
  repairEnabled: boolean;

  /**
   * @generated from field: astacus.m3.RetentionOptions retention = 6;
   */
  retention?: RetentionOptions | undefined;

  /**
   * @generated from field: bool snapshot_enabled = 7;
   */
  snapshotEnabled: boolean;

  /**
   * @generated from field: astacus.m3.IndexOptions index = 8;
   */
  index?: IndexOptions | undefined;

  /**
   * @generated from field: bool cold_writes_enabled = 10;
   */
  coldWritesEnabled: boolean;
};

/**
 * Describes the message astacus.m3.NamespaceOptions.
 * Use `create(NamespaceOptionsSchema)` to create a new message.
 */
export const NamespaceOptionsSchema: GenMessage<NamespaceOptions> =
  /*@__PURE__*/
  messageDesc(file_namespaces, 2);

/**
 * @generated from message astacus.m3.RetentionOptions
 */
export type RetentionOptions = Message<"astacus.m3.RetentionOptions"> & {
  /**
   * @generated from field: int64 retention_period_nanos = 1;
   */
  retentionPeriodNanos: bigint;

  /**
   * @generated from field: int64 block_size_nanos = 2;
   */
  blockSizeNanos: bigint;

  /**
   * @generated from field: int64 buffer_future_nanos = 3;
   */
  bufferFutureNanos: bigint;

  /**
   * @generated from field: int64 buffer_past_nanos = 4;
   */
  bufferPastNanos: bigint;

  /**
   * @generated from field: int64 future_retention_period_nanos = 7;
   */
  futureRetentionPeriodNanos: bigint;
};

/**
 * Describes the message astacus.m3.RetentionOptions.
 * Use `create(RetentionOptionsSchema)` to create a new message.
 */
export const RetentionOptionsSchema: GenMessage<RetentionOptions> =
  /*@__PURE__*/
  messageDesc(file_namespaces, 3);

/**
 * @generated from message astacus.m3.IndexOptions
 */
export type IndexOptions = Message<"astacus.m3.IndexOptions"> & {
  /**
   * @generated from field: bool enabled = 1;
   */
  enabled: boolean;

  /**
   * @generated from field: int64 block_size_nanos = 2;
   */
  blockSizeNanos: bigint;
};

/**
 * Describes the message astacus.m3.IndexOptions.
 * Use `create(IndexOptionsSchema)` to create a new message.
 */
export const IndexOptionsSchema: GenMessage<IndexOptions> =
  /*@__PURE__*/
  messageDesc(file_namespaces, 4);
