/**
 * Names and addresses, as several sections of the configuration have them.
 */
import { z } from "zod";

/** Names of sites, nodes and clusters: they appear in paths, URLs and metrics. */
export const NAME_PATTERN = /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}$/;

/** The pattern in words. */
export const NAME_EXPECTED = "1 to 64 letters, digits, dots, dashes and underscores";

/** A name. */
export function nameField() {
  return z.string().regex(NAME_PATTERN).meta({ expected: NAME_EXPECTED, kind: "name" });
}

/** The name of a site. */
export function siteName() {
  return nameField().meta({ description: "The site's name, in commands and messages." });
}

/** The part of a bucket that is a site's own. */
export function bucketPrefix() {
  return z
    .string()
    .regex(/^[A-Za-z0-9._-]+(?:\/[A-Za-z0-9._-]+)*$/)
    .refine((prefix) => !prefix.split("/").some((part) => part === "." || part === ".."))
    .optional()
    .meta({
      expected: "letters, digits, dots, dashes, underscores, and single slashes between",
      description: "Put before every object's name, so that a bucket can hold other things too.",
    });
}

/** An HTTP or HTTPS address without a path. */
export function httpAddress() {
  return z
    .string()
    .refine((text) => getHttpOrigin(text) !== undefined)
    .meta({ expected: "http://host:port or https://host:port", kind: "address" });
}

/** `http://host:port` in its one normal form, default port left out; undefined if it is none. */
export function getHttpOrigin(text: string): string | undefined {
  if (!URL.canParse(text)) return undefined;
  const url = new URL(text);
  const isBare =
    url.pathname === "/" && url.search === "" && url.hash === "" && url.username === "";
  const isHttp = url.protocol === "http:" || url.protocol === "https:";
  return isHttp && isBare && url.password === "" ? url.origin : undefined;
}
