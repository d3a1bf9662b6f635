/**
 * What is wrong with a configuration file: every problem at once, each with its place, what was
 * found and what is expected. Values of secrets are never shown.
 */
import type { z } from "zod";
import { AppError } from "../base/error.ts";
import { nearest } from "../base/nearest.ts";
import { childOf, describeExpected, getOutlineAt, listPlacesOf } from "./config-outline.ts";
import type { ConfigPath, Outline } from "./config-outline.ts";

/** One thing that is wrong, without its place in the file. */
export type Finding = {
  readonly path: ConfigPath;
  /** What is wrong, without a full stop. */
  readonly text: string;
  /** What to do, a full sentence. */
  readonly hint?: string;
  /** Whether the key is meant, and not its value. */
  readonly isAtKey?: boolean;
};

/** One thing that is wrong, with its place in the file. */
export type ConfigProblem = {
  /** From 1. */
  readonly line: number;
  /** From 1. */
  readonly column: number;
  /** Dotted: `sites[0].bucket`; empty for the file as a whole. */
  readonly path: string;
  readonly text: string;
  readonly hint?: string;
};

/** An AppError of kind `config` that lists all problems of one file. */
export class ConfigProblems extends AppError {
  readonly problems: readonly ConfigProblem[];

  constructor(fileName: string, problems: readonly ConfigProblem[]) {
    const sorted = problems.toSorted((a, b) => a.line - b.line || a.column - b.column);
    const count = sorted.length === 1 ? "1 problem" : `${sorted.length} problems`;
    const lines = sorted.map((problem) => `  ${fileName}:${formatProblem(problem)}`);
    super("config", [`The configuration has ${count}:`, ...lines].join("\n"), {
      guidance:
        "docs/configuration.md lists every key, and examples/ has whole files to start from.",
      context: { file: fileName, problems: sorted.length },
    });
    this.problems = sorted;
  }
}

/** A path for people: `sites[0].bucket`. */
export function formatPath(path: ConfigPath): string {
  return path
    .map((key, index) => (typeof key === "number" ? `[${key}]` : index === 0 ? key : `.${key}`))
    .join("");
}

/** What a schema found wrong, in our words. */
export function findingsOfIssue(
  issue: z.core.$ZodIssue,
  value: unknown,
  outline: Outline,
): Finding[] {
  const path = issue.path.map((key) => (typeof key === "number" ? key : String(key)));
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => unknownKey([...path, key], value, outline));
  }
  const found = valueAt(value, path);
  if (issue.code === "invalid_union" && issue.discriminator !== undefined) {
    const known =
      "options" in issue && Array.isArray(issue.options) ? issue.options.map(String) : [];
    return [wrongValue(path, found, { expected: `one of ${known.join(", ")}`, known })];
  }
  const place = getOutlineAt(outline, value, path) ?? {};
  const known = place.enum ?? [];
  const isSecret = place.kind === "secret";
  return [wrongValue(path, found, { expected: describeExpected(place), known, isSecret })];
}

/** Those of the keys without a value that the schema does not know. */
export function findingsOfEmpty(
  empty: readonly ConfigPath[],
  value: unknown,
  outline: Outline,
): Finding[] {
  return empty.flatMap((path) => {
    const known = getOutlineAt(outline, value, path.slice(0, -1))?.properties;
    if (known === undefined || Object.hasOwn(known, String(path.at(-1)))) return [];
    return [unknownKey(path, value, outline)];
  });
}

/** What lies at a path of a value. */
export function valueAt(value: unknown, path: ConfigPath): unknown {
  return path.reduce<unknown>((parent, key) => childOf(parent, key), value);
}

function unknownKey(path: ConfigPath, value: unknown, outline: Outline): Finding {
  const key = String(path.at(-1));
  const known = Object.keys(getOutlineAt(outline, value, path.slice(0, -1))?.properties ?? {});
  const meant = nearest(key, known);
  const elsewhere = listPlacesOf(outline, key);
  const hint =
    meant !== undefined
      ? `Did you mean "${meant}"?`
      : elsewhere.length > 0 && elsewhere.length <= 3
        ? `It belongs at ${elsewhere.join(" or ")}.`
        : `Known here: ${known.join(", ")}.`;
  return { path, text: `unknown key "${key}"`, hint, isAtKey: true };
}

function wrongValue(
  path: ConfigPath,
  found: unknown,
  how: {
    readonly expected: string;
    readonly known: readonly string[];
    readonly isSecret?: boolean;
  },
): Finding {
  if (found === undefined) return { path, text: `missing; expected ${how.expected}` };
  const meant = typeof found === "string" ? nearest(found, how.known) : undefined;
  const text = `found ${describeFound(found, how.isSecret ?? false)}; expected ${how.expected}`;
  return meant === undefined ? { path, text } : { path, text, hint: `Did you mean "${meant}"?` };
}

function describeFound(found: unknown, isSecret: boolean): string {
  if (found === null) return "nothing";
  if (Array.isArray(found)) return `a list of ${found.length}`;
  if (typeof found === "object") return "a section";
  if (isSecret) return `a ${typeof found}`;
  if (typeof found !== "string") return JSON.stringify(found);
  // An address may carry a password, and so may anything that looks like one.
  const shown = found.replaceAll(/\/\/[^/]*@/g, "//***@");
  return JSON.stringify(shown.length > 60 ? `${shown.slice(0, 60)}…` : shown);
}

function formatProblem(problem: ConfigProblem): string {
  const { line, column, path, text, hint } = problem;
  const place = path === "" ? `${line}:${column}` : `${line}:${column} ${path}`;
  return `${place}: ${text}.${hint === undefined ? "" : ` ${hint}`}`;
}
