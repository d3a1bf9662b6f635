/** The messages of snapshot.proto. Generated (scripts/generate-proto.ts); not edited by hand. */
// The metadata of M3's snapshots, by field numbers (M3 1.5). Names are ours. Fields that are not
// listed here are kept as unknown ones when a message is written again.

import type { GenFile, GenMessage } from "@bufbuild/protobuf/codegenv2";
import { fileDesc, messageDesc } from "@bufbuild/protobuf/codegenv2";
import type { Message } from "@bufbuild/protobuf";

/**
 * Describes the file snapshot.proto.
 */
export const file_snapshot: GenFile =
  /*@__PURE__*/
  fileDesc(
    "Cg5zbmFwc2hvdC5wcm90bxIKYXN0YWN1cy5tMyJxChBTbmFwc2hvdE1ldGFkYXRhEhYKDnNuYXBzaG90X2luZGV4GAEgASgDEhUKDXNuYXBzaG90X3V1aWQYAiABKAwSLgoNY29tbWl0X2xvZ19pZBgDIAEoCzIXLmFzdGFjdXMubTMuQ29tbWl0TG9nSWQiLwoLQ29tbWl0TG9nSWQSEQoJZmlsZV9wYXRoGAEgASgJEg0KBWluZGV4GAIgASgDYgZwcm90bzM",
  );

/**
 * @generated from message astacus.m3.SnapshotMetadata
 */
export type SnapshotMetadata = Message<"astacus.m3.SnapshotMetadata"> & {
  /**
   * @generated from field: int64 snapshot_index = 1;
   */
  snapshotIndex: bigint;

  /**
   * The UUID as text, with dashes.
   *
   * @generated from field: bytes snapshot_uuid = 2;
   */
  snapshotUuid: Uint8Array;

  /**
   * @generated from field: astacus.m3.CommitLogId commit_log_id = 3;
   */
  commitLogId?: CommitLogId | undefined;
};

/**
 * Describes the message astacus.m3.SnapshotMetadata.
 * Use `create(SnapshotMetadataSchema)` to create a new message.
 */
export const SnapshotMetadataSchema: GenMessage<SnapshotMetadata> =
  /*@__PURE__*/
  messageDesc(file_snapshot, 0);

/**
 * The first commit log that a restart needs besides the snapshot.
 *
 * @generated from message astacus.m3.CommitLogId
 */
export type CommitLogId = Message<"astacus.m3.CommitLogId"> & {
  /**
   * Absolute.
   *
   * @generated from field: string file_path = 1;
   */
  filePath: string;

  /**
   * @generated from field: int64 index = 2;
   */
  index: bigint;
};

/**
 * Describes the message astacus.m3.CommitLogId.
 * Use `create(CommitLogIdSchema)` to create a new message.
 */
export const CommitLogIdSchema: GenMessage<CommitLogId> =
  /*@__PURE__*/
  messageDesc(file_snapshot, 1);
