/** The messages of index-fileset.proto. Generated (scripts/generate-proto.ts); not edited by hand. */
/* oxlint-disable eslint/max-lines */
// The digest file of M3's index filesets, by field numbers (M3 1.5). Names are ours.


import type { GenFile, GenMessage } from "@bufbuild/protobuf/codegenv2";
import { fileDesc, messageDesc } from "@bufbuild/protobuf/codegenv2";
import type { Message } from "@bufbuild/protobuf";

/**
 * Describes the file index-fileset.proto.
 */
export const file_index_fileset: GenFile = /*@__PURE__*/
  fileDesc("ChNpbmRleC1maWxlc2V0LnByb3RvEgphc3RhY3VzLm0zIlEKDEluZGV4RGlnZXN0cxITCgtpbmZvX2RpZ2VzdBgBIAEoDRIsCghzZWdtZW50cxgCIAMoCzIaLmFzdGFjdXMubTMuU2VnbWVudERpZ2VzdHMiVAoOU2VnbWVudERpZ2VzdHMSFAoMc2VnbWVudF90eXBlGAEgASgJEiwKBWZpbGVzGAIgAygLMh0uYXN0YWN1cy5tMy5TZWdtZW50RmlsZURpZ2VzdCI2ChFTZWdtZW50RmlsZURpZ2VzdBIRCglmaWxlX3R5cGUYASABKAkSDgoGZGlnZXN0GAIgASgNYgZwcm90bzM");

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
export const IndexDigestsSchema: GenMessage<IndexDigests> = /*@__PURE__*/
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
export const SegmentDigestsSchema: GenMessage<SegmentDigests> = /*@__PURE__*/
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
export const SegmentFileDigestSchema: GenMessage<SegmentFileDigest> = /*@__PURE__*/
  messageDesc(file_index_fileset, 2);

