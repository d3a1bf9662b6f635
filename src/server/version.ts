/**
 * The version of this program, as package.json has it.
 */
import packageJson from "../../package.json" with { type: "json" };

/** `0.1.0`. */
export const VERSION: string = packageJson.version;
