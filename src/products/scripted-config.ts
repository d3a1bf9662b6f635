/**
 * The configuration of the `scripted` product: the toy database of the tests, which has one of each
 * shape that a real product needs. Its settings are checked by the product itself.
 */
import { z } from "zod";
import { pathField } from "../base/fields.ts";

/** The `product` section where `type` is `scripted`. */
export const scriptedConfigSchema = z
  .strictObject({
    type: z.literal("scripted").meta({
      description: "A toy database for tests and for learning how products work.",
    }),
    root: pathField().meta({
      description: "The folder of the toy's files. `{node}` becomes the node's name.",
    }),
    settings: z
      .record(z.string(), z.json())
      .prefault({})
      .meta({ description: "Whatever the toy wants to be told." }),
  })
  .meta({ title: "scripted" });

/** What the `scripted` product is given, `{node}` replaced. */
export type ScriptedConfig = z.infer<typeof scriptedConfigSchema>;
