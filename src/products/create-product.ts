/**
 * From a product's configuration to the product. A new product adds its line here and its schema in
 * the configuration, and is then known everywhere.
 */
import type { EtcdConfig } from "./etcd/etcd-config.ts";
import { createEtcdProduct } from "./etcd/etcd.ts";
import type { FilesConfig } from "./files-config.ts";
import { createFilesProduct } from "./files.ts";
import type { M3Config } from "./m3/m3-config.ts";
import { createM3Product } from "./m3/m3.ts";
import type { Product } from "./product.ts";
import type { ScriptedConfig } from "./scripted-config.ts";
import { createScriptedProduct } from "./scripted.ts";

/** The product that the configuration names. */
export function createProduct(
  config: EtcdConfig | FilesConfig | M3Config | ScriptedConfig,
): Product {
  switch (config.type) {
    case "etcd":
      return createEtcdProduct(config);
    case "files":
      return createFilesProduct(config);
    case "m3":
      return createM3Product(config);
    case "scripted":
      return createScriptedProduct(config);
  }
}
