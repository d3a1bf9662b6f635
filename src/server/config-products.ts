/**
 * The `product` section: one schema for each product there is. A new product adds its own here, and
 * errors, reference and types follow.
 */
import { z } from "zod";
import { pathFromText } from "../base/path.ts";
import { etcdConfigSchema } from "../products/etcd/etcd-config.ts";
import type { EtcdConnection } from "../products/etcd/etcd-config.ts";
import { filesConfigSchema } from "../products/files-config.ts";
import { m3ConfigSchema } from "../products/m3/m3-config.ts";
import { scriptedConfigSchema } from "../products/scripted-config.ts";

/** The `product` section. */
export const productSchema = z
  .discriminatedUnion("type", [
    filesConfigSchema,
    m3ConfigSchema,
    etcdConfigSchema,
    scriptedConfigSchema,
  ])
  .meta({ description: "Which database is backed up, and where its files are." });

/** The product's part of the configuration, told apart by `type`. */
export type ProductConfig = z.infer<typeof productSchema>;

/** The values that `product.type` may have. */
export const PRODUCT_TYPES: readonly string[] = productSchema.options.map(
  (option) => option.shape.type.value,
);

/**
 * A product's paths as its node has them: `{node}` replaced, relative ones from the file's folder.
 * @param own - The node's own `root`, in place of the common one.
 */
export function resolveProductPaths(
  product: ProductConfig,
  place: (path: string) => string,
  own: string | undefined,
): ProductConfig {
  const root = pathFromText(place(own ?? product.root));
  if (product.type !== "m3" && product.type !== "etcd") return { ...product, root };
  const etcd = resolveEtcdPaths(product.etcd, place);
  if (product.type === "etcd") return { ...product, root, etcd };
  const { captures } = product;
  return {
    ...product,
    root,
    etcd,
    ...(captures === undefined ? {} : { captures: place(captures) }),
  };
}

/** PEM files are named by text. */
function resolveEtcdPaths(etcd: EtcdConnection, place: (path: string) => string): EtcdConnection {
  if (etcd.tls === undefined) return etcd;
  const tls = Object.entries(etcd.tls).flatMap(([key, path]) =>
    path === undefined ? [] : [[key, place(path)]],
  );
  return { ...etcd, tls: Object.fromEntries(tls) as NonNullable<EtcdConnection["tls"]> };
}
