/**
 * The `product` section: one schema for each product there is. A new product adds its own here, and
 * errors, reference and types follow.
 */
import { z } from "zod";
import { filesConfigSchema } from "../products/files-config.ts";
import { scriptedConfigSchema } from "../products/scripted-config.ts";

/** The `product` section. */
export const productSchema = z
  .discriminatedUnion("type", [filesConfigSchema, scriptedConfigSchema])
  .meta({ description: "Which database is backed up, and where its files are." });

/** The product's part of the configuration, told apart by `type`. */
export type ProductConfig = z.infer<typeof productSchema>;

/** The values that `product.type` may have. */
export const PRODUCT_TYPES: readonly string[] = productSchema.options.map(
  (option) => option.shape.type.value,
);
