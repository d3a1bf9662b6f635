/**
 * The schema of the configuration as plain data (JSON Schema, as zod writes it): what keys there
 * are at a place, and what a value there should be, in words. Error messages, the search for
 * secrets and the reference page walk this one tree.
 */
import { z } from "zod";

/** One place of the configuration: the parts of JSON Schema that our schemas use, and our marks. */
export type Outline = {
  readonly description?: string;
  /** Our mark: what a value should be, in words. */
  readonly expected?: string;
  /** Our mark: `secret`, `size`, `duration`, `path`, `name` or `address`. */
  readonly kind?: string;
  readonly title?: string;
  readonly default?: unknown;
  readonly type?: string;
  readonly const?: string;
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly properties?: Readonly<Record<string, Outline>>;
  readonly required?: readonly string[];
  readonly items?: Outline;
  /** Variants that a `type` key tells apart. */
  readonly oneOf?: readonly Outline[];
};

/** Where something is: keys and list indexes from the top. */
export type ConfigPath = readonly (string | number)[];

const outlines = new WeakMap<z.ZodType, Outline>();

/** The outline of a schema; made once for each, as it takes some milliseconds. */
export function outlineOf(schema: z.ZodType): Outline {
  const known = outlines.get(schema);
  if (known !== undefined) return known;
  // A door: zod types its output as an open record, and Outline names the parts that we use.
  const outline = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as Outline;
  outlines.set(schema, outline);
  return outline;
}

/** The outline at a path; the value decides between variants. Undefined where the schema has none. */
export function getOutlineAt(
  outline: Outline,
  value: unknown,
  path: ConfigPath,
): Outline | undefined {
  const chosen = chooseVariant(outline, value);
  const [key, ...rest] = path;
  if (key === undefined) return chosen;
  const child = typeof key === "number" ? chosen.items : getProperty(chosen, key);
  return child === undefined ? undefined : getOutlineAt(child, childOf(value, key), rest);
}

/** The variant of an outline that a value's `type` names; the outline itself if there is no choice. */
export function chooseVariant(outline: Outline, value: unknown): Outline {
  const type = childOf(value, "type");
  return outline.oneOf?.find((variant) => variant.properties?.["type"]?.const === type) ?? outline;
}

/** A value's child, undefined where it has none. */
export function childOf(value: unknown, key: string | number): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
  return Reflect.get(value, key);
}

/** What a value at this place should be, for people. */
export function describeExpected(outline: Outline): string {
  const { minimum, maximum, minItems, maxItems } = outline;
  if (outline.expected !== undefined) return outline.expected;
  if (outline.const !== undefined) return outline.const;
  if (outline.enum !== undefined) return `one of ${outline.enum.join(", ")}`;
  if (outline.oneOf !== undefined) return "a section with a `type`";
  switch (outline.type) {
    case "integer":
      return `a whole number from ${minimum} to ${maximum}`;
    case "number":
      return `a number from ${minimum} to ${maximum}`;
    case "boolean":
      return "true or false";
    case "array":
      return `a list of ${minItems ?? 0} to ${maxItems} entries`;
    case "object":
      return "a section of keys and values";
    default:
      return "text";
  }
}

/** All paths, dotted, that end in this key: where a key that stands in the wrong place belongs. */
export function listPlacesOf(outline: Outline, key: string, prefix = ""): string[] {
  const inVariants = (outline.oneOf ?? []).flatMap((each) => listPlacesOf(each, key, prefix));
  const inItems =
    outline.items === undefined ? [] : listPlacesOf(outline.items, key, `${prefix}[]`);
  const own = Object.entries(outline.properties ?? {}).flatMap(([name, child]) => {
    const place = prefix === "" ? name : `${prefix}.${name}`;
    return [...(name === key ? [place] : []), ...listPlacesOf(child, key, place)];
  });
  return [...new Set([...inVariants, ...inItems, ...own])];
}

function getProperty(outline: Outline, key: string): Outline | undefined {
  const properties = outline.properties;
  return properties !== undefined && Object.hasOwn(properties, key) ? properties[key] : undefined;
}
