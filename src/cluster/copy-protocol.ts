/**
 * A part of the wire protocol (protocol.ts): the method `copy-packs`, by which a coordinator has
 * another node bring packs from one site to another. It is stateless and may be repeated: what the
 * target has under the same birth is not sent twice.
 */
import { z } from "zod";
import { siteUsageSchema } from "./usage.ts";

/** Packs of one call: enough to keep a node busy, little to lose with it. */
export const COPY_PACK_COUNT_MAX = 32;

const randomId = z.string().regex(/^[0-9a-f]{32}$/);
const packId = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.number().int().min(0);

const orderSchema = z.strictObject({
  pack: packId,
  fromBirth: count,
  toBirth: count,
  sizeBytes: count,
  directoryLength: count,
  mayBeThere: z.boolean(),
  readBack: z.boolean(),
});

/** Sites by their ids, since nodes may call them by other names. */
export const copyPacksRequestSchema = z.strictObject({
  from: randomId,
  to: randomId,
  orders: z.array(orderSchema).min(1).max(COPY_PACK_COUNT_MAX),
});
export type CopyPacksRequest = z.infer<typeof copyPacksRequestSchema>;

export const copyPacksAnswerSchema = z.strictObject({
  arrived: z.array(
    z.strictObject({
      pack: packId,
      birth: count,
      sizeBytes: count,
      /** The pack's plain directory, Base64. */
      directory: z.base64(),
      isSent: z.boolean(),
    }),
  ),
  usage: z.array(siteUsageSchema),
});
export type CopyPacksAnswer = z.infer<typeof copyPacksAnswerSchema>;
