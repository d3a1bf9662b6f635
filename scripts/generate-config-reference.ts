/**
 * Writes docs/configuration.md from the schema of the configuration file. Run it after a change of
 * the schema: `bun scripts/generate-config-reference.ts`.
 */
import { join } from "node:path";
import { renderConfigReference } from "../src/server/config-reference.ts";

const target = join(import.meta.dir, "../docs/configuration.md");
await Bun.write(target, renderConfigReference());
