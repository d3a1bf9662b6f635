/**
 * The part of a bucket that is a site's own.
 */
import { AppError } from "../base/error.ts";
import { isObjectKey } from "./object-key.ts";

/** A prefix without slashes at its ends; empty for the whole bucket. Throws `config`. */
export function parseSitePrefix(site: string, text: string | undefined): string {
  const prefix = (text ?? "").replace(/^\/+|\/+$/g, "");
  if (prefix === "" || isObjectKey(prefix)) return prefix;
  throw new AppError("config", `The prefix of site ${site} is not a key.`, {
    guidance: "Use letters, digits, '.', '_', '-' and single slashes.",
    context: { site, prefix },
  });
}
