/** The messages of topic.proto. Generated (scripts/generate-proto.ts); not edited by hand. */
// M3's message topics, by field numbers on the wire (M3 1.5): read to rename an environment in them.

import type { GenFile, GenMessage } from "@bufbuild/protobuf/codegenv2";
import { fileDesc, messageDesc } from "@bufbuild/protobuf/codegenv2";
import type { Message } from "@bufbuild/protobuf";

/**
 * Describes the file topic.proto.
 */
export const file_topic: GenFile =
  /*@__PURE__*/
  fileDesc(
    "Cgt0b3BpYy5wcm90bxIKYXN0YWN1cy5tMyJYCgVUb3BpYxIMCgRuYW1lGAEgASgJEhMKC3NoYXJkX2NvdW50GAIgASgNEiwKCWNvbnN1bWVycxgDIAMoCzIZLmFzdGFjdXMubTMuVG9waWNDb25zdW1lciI6Cg1Ub3BpY0NvbnN1bWVyEikKB3NlcnZpY2UYASABKAsyGC5hc3RhY3VzLm0zLlRvcGljU2VydmljZSI/CgxUb3BpY1NlcnZpY2USDAoEbmFtZRgBIAEoCRITCgtlbnZpcm9ubWVudBgCIAEoCRIMCgR6b25lGAMgASgJYgZwcm90bzM",
  );

/**
 * @generated from message astacus.m3.Topic
 */
export type Topic = Message<"astacus.m3.Topic"> & {
  /**
   * @generated from field: string name = 1;
   */
  name: string;

  /**
   * @generated from field: uint32 shard_count = 2;
   */
  shardCount: number;

  /**
   * @generated from field: repeated astacus.m3.TopicConsumer consumers = 3;
   */
  consumers: TopicConsumer[];
};

/**
 * Describes the message astacus.m3.Topic.
 * Use `create(TopicSchema)` to create a new message.
 */
export const TopicSchema: GenMessage<Topic> = /*@__PURE__*/ messageDesc(file_topic, 0);

/**
 * @generated from message astacus.m3.TopicConsumer
 */
export type TopicConsumer = Message<"astacus.m3.TopicConsumer"> & {
  /**
   * @generated from field: astacus.m3.TopicService service = 1;
   */
  service?: TopicService | undefined;
};

/**
 * Describes the message astacus.m3.TopicConsumer.
 * Use `create(TopicConsumerSchema)` to create a new message.
 */
export const TopicConsumerSchema: GenMessage<TopicConsumer> =
  /*@__PURE__*/
  messageDesc(file_topic, 1);

/**
 * @generated from message astacus.m3.TopicService
 */
export type TopicService = Message<"astacus.m3.TopicService"> & {
  /**
   * @generated from field: string name = 1;
   */
  name: string;

  /**
   * @generated from field: string environment = 2;
   */
  environment: string;

  /**
   * @generated from field: string zone = 3;
   */
  zone: string;
};

/**
 * Describes the message astacus.m3.TopicService.
 * Use `create(TopicServiceSchema)` to create a new message.
 */
export const TopicServiceSchema: GenMessage<TopicService> =
  /*@__PURE__*/
  messageDesc(file_topic, 2);
