/** The messages of index-fileset.proto. Generated (scripts/generate-proto.ts); not edited by hand. */
// The digest and info files of M3's index filesets, by field numbers (M3 1.5). Names are ours.

import type { GenFile, GenMessage } from "@bufbuild/protobuf/codegenv2";
import { fileDesc, messageDesc } from "@bufbuild/protobuf/codegenv2";
import type { Message } from "@bufbuild/protobuf";

/**
 * Describes the file index-fileset.proto.
 */
export const file_index_fileset: GenFile =
  /*@__PURE__*/
  fileDesc(
    "ChNpbmRleC1maWxlc2V0LnByb3RvEgphc3RhY3VzLm0zIlEKDEluZGV4RGlnZXN0cxITCgtpbmZvX2RpZ2VzdBgBIAEoDRIsCghzZWdtZW50cxgCIAMoCzIaLmFzdGFjdXMubTMuU2VnbWVudERpZ2VzdHMiVAoOU2VnbWVudERpZ2VzdHMSFAoMc2VnbWVudF90eXBlGAEgASgJEiwKBWZpbGVzGAIgAygLMh0uYXN0YWN1cy5tMy5TZWdtZW50RmlsZURpZ2VzdCI2ChFTZWdtZW50RmlsZURpZ2VzdBIRCglmaWxlX3R5cGUYASABKAkSDgoGZGlnZXN0GAIgASgNIosBCg9JbmRleFZvbHVtZUluZm8SFQoNbWFqb3JfdmVyc2lvbhgBIAEoAxITCgtibG9ja19zdGFydBgCIAEoAxISCgpibG9ja19zaXplGAMgASgDEhEKCWZpbGVfdHlwZRgEIAEoAxIOCgZzaGFyZHMYBSADKA0SFQoNc25hcHNob3RfdGltZRgGIAEoA2IGcHJvdG8z",
  );

/**
 * @generated from message astacus.m3.IndexDigests
 */
export type IndexDigests = Message<"astacus.m3.IndexDigests"> & {
  /**
   * @generated from field: uint32 info_digest = 1;
   */
  infoDigest: number;

  /**
   * In the order of the segments' numbers in file names.
   *
   * @generated from field: repeated astacus.m3.SegmentDigests segments = 2;
   */
  segments: SegmentDigests[];
};

/**
 * Describes the message astacus.m3.IndexDigests.
 * Use `create(IndexDigestsSchema)` to create a new message.
 */
export const IndexDigestsSchema: GenMessage<IndexDigests> =
  /*@__PURE__*/
  messageDesc(file_index_fileset, 0);

/**
 * @generated from message astacus.m3.SegmentDigests
 */
export type SegmentDigests = Message<"astacus.m3.SegmentDigests"> & {
  /**
   * @generated from field: string segment_type = 1;
   */
  segmentType: string;

  /**
   * @generated from field: repeated astacus.m3.SegmentFileDigest files = 2;
   */
  files: SegmentFileDigest[];
};

/**
 * Describes the message astacus.m3.SegmentDigests.
 * Use `create(SegmentDigestsSchema)` to create a new message.
 */
export const SegmentDigestsSchema: GenMessage<SegmentDigests> =
  /*@__PURE__*/
  messageDesc(file_index_fileset, 1);

/**
 * @generated from message astacus.m3.SegmentFileDigest
 */
export type SegmentFileDigest = Message<"astacus.m3.SegmentFileDigest"> & {
  /**
   * `docdata`, `fstterms`, …: the end of the file's name.
   *
   * @generated from field: string file_type = 1;
   */
  fileType: string;

  /**
   * @generated from field: uint32 digest = 2;
   */
  digest: number;
};

/**
 * Describes the message astacus.m3.SegmentFileDigest.
 * Use `create(SegmentFileDigestSchema)` to create a new message.
 */
export const SegmentFileDigestSchema: GenMessage<SegmentFileDigest> =
  /*@__PURE__*/
  messageDesc(file_index_fileset, 2);

/**
 * The info file of an index fileset, as far as it is used here.
 *
 * @generated from message astacus.m3.IndexVolumeInfo
 */
export type IndexVolumeInfo = Message<"astacus.m3.IndexVolumeInfo"> & {
  /**
   * @generated from field: int64 major_version = 1;
   */
  majorVersion: bigint;

  /**
   * @generated from field: int64 block_start = 2;
   */
  blockStart: bigint;

  /**
   * @generated from field: int64 block_size = 3;
   */
  blockSize: bigint;

  /**
   * @generated from field: int64 file_type = 4;
   */
  fileType: bigint;

  /**
   * @generated from field: repeated uint32 shards = 5;
   */
  shards: number[];

  /**
   * @generated from field: int64 snapshot_time = 6;
   */
  snapshotTime: bigint;
};

/**
 * Describes the message astacus.m3.IndexVolumeInfo.
 * Use `create(IndexVolumeInfoSchema)` to create a new message.
 */
export const IndexVolumeInfoSchema: GenMessage<IndexVolumeInfo> =
  /*@__PURE__*/
  messageDesc(file_index_fileset, 3);
