/**
 * Writes docs/cli.md from the program. Run it after a change of a command or an option:
 * `bun scripts/generate-cli-reference.ts`.
 */
import { join } from "node:path";
import { renderCliReference } from "../src/cli/reference.ts";

await Bun.write(join(import.meta.dir, "../docs/cli.md"), renderCliReference());
