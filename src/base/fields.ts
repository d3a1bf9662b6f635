/**
 * Building blocks for configuration schemas, shared by the server's file and the products' parts of
 * it. Each carries, in words, what it expects (`expected`): error messages and the reference page
 * are made from the schemas, so nothing is described twice.
 */
import { z } from "zod";
import { AppError } from "./error.ts";
import { Secret } from "./secret.ts";
import { DURATION_EXPECTED, formatDuration, formatSize, parseDuration } from "./units.ts";
import { parseRate, parseSize, RATE_EXPECTED, SIZE_EXPECTED } from "./units.ts";

/** Bounds of a size or duration, in bytes or milliseconds. */
export type Bounds = { readonly min?: number; readonly max?: number };

/** A size in bytes, written `16MiB`, or as a bare number of bytes. */
export function sizeField(bounds: Bounds = {}) {
  const expected =
    SIZE_EXPECTED + boundsInWords(bounds, (bytes) => formatSize(bytes, { exact: true }));
  return z
    .union([z.string(), z.number()])
    .transform((value, context) => measured(() => parseSize(String(value)), bounds, context))
    .meta({ expected, kind: "size" });
}

/** A duration in milliseconds, written `30s`; a bare number is refused, since it has no unit. */
export function durationField(bounds: Bounds = {}) {
  const expected =
    DURATION_EXPECTED + boundsInWords(bounds, (ms) => formatDuration(ms, { exact: true }));
  return z
    .string()
    .transform((value, context) => measured(() => parseDuration(value), bounds, context))
    .meta({ expected, kind: "duration" });
}

/** Bytes per second, written `50MB/s`. */
export function rateField(bounds: Bounds = {}) {
  const inWords = (bytes: number): string => `${formatSize(bytes, { exact: true })}/s`;
  return z
    .string()
    .transform((value, context) => measured(() => parseRate(value), bounds, context))
    .meta({ expected: RATE_EXPECTED + boundsInWords(bounds, inWords), kind: "rate" });
}

/** A path on the node; `{node}` in it becomes the node's name where the description says so. */
export function pathField() {
  return z
    .string()
    .min(1)
    .refine((path) => !path.includes("\0"))
    .meta({ expected: "a path", kind: "path" });
}

/**
 * A secret: the text itself, `{env: NAME}` or `{file: PATH}`. The reader of the file replaces it by
 * a `Secret` before the schema sees it (the mark `kind: secret` tells where), so that schemas need
 * no access to the environment.
 */
export function secretField() {
  return z
    .custom<Secret>((value) => value instanceof Secret)
    .meta({
      expected: "a secret: text, {env: NAME} or {file: PATH}",
      kind: "secret",
      anyOf: [
        { type: "string" },
        ...["env", "file"].map((source) => ({
          type: "object",
          properties: { [source]: { type: "string" } },
          required: [source],
          additionalProperties: false,
        })),
      ],
    });
}

function measured(parse: () => number, bounds: Bounds, context: z.RefinementCtx): number {
  try {
    const value = parse();
    if (value >= (bounds.min ?? 0) && value <= (bounds.max ?? Infinity)) return value;
  } catch (thrown) {
    if (!(thrown instanceof AppError)) throw thrown;
  }
  context.addIssue({ code: "custom" });
  return z.NEVER;
}

function boundsInWords(bounds: Bounds, format: (value: number) => string): string {
  const { min, max } = bounds;
  if (min !== undefined && max !== undefined) return `, from ${format(min)} to ${format(max)}`;
  if (min !== undefined) return `, at least ${format(min)}`;
  return max === undefined ? "" : `, at most ${format(max)}`;
}
