/**
 * Replaces every secret of a configuration (text, `{env: NAME}`, `{file: PATH}`) by a `Secret`,
 * before the schema looks at it. What cannot be resolved is reported, and stands as an empty secret
 * until then.
 */
import { isAbsolute, join } from "node:path";
import { Secret } from "../base/secret.ts";
import { chooseVariant, childOf } from "./config-outline.ts";
import type { ConfigPath, Outline } from "./config-outline.ts";
import type { Finding } from "./config-problems.ts";

/** Where secrets come from. */
export type SecretSources = {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly readFile: (path: string) => string;
  /** Relative paths start here. */
  readonly folder: string;
  readonly report: (finding: Finding) => void;
};

/** The value with secrets in place of what names them. */
export function resolveSecrets(
  value: unknown,
  outline: Outline,
  sources: SecretSources,
  path: ConfigPath = [],
): unknown {
  if (outline.kind === "secret") return resolveSecret(value, sources, path);
  const chosen = chooseVariant(outline, value);
  if (Array.isArray(value)) {
    const items = chosen.items;
    if (items === undefined) return value;
    return value.map((each, index) => resolveSecrets(each, items, sources, [...path, index]));
  }
  if (typeof value !== "object" || value === null) return value;
  const children = Object.entries(value).map(([key, child]) => {
    const place = childOutline(chosen, key);
    return [
      key,
      place === undefined ? child : resolveSecrets(child, place, sources, [...path, key]),
    ];
  });
  return Object.fromEntries(children);
}

function childOutline(outline: Outline, key: string): Outline | undefined {
  const properties = outline.properties ?? {};
  return Object.hasOwn(properties, key) ? properties[key] : undefined;
}

/** A `Secret`, or the value itself where it has not the shape of one: the schema says so then. */
function resolveSecret(value: unknown, sources: SecretSources, path: ConfigPath): unknown {
  const { report } = sources;
  if (typeof value === "string") {
    if (value === "") report({ path, text: "the secret is empty" });
    return new Secret(value);
  }
  if (typeof value !== "object" || value === null || Object.keys(value).length !== 1) return value;
  const name = childOf(value, "env");
  const file = childOf(value, "file");
  if (typeof name === "string") return fromEnvironment(name, sources, path);
  if (typeof file === "string") return fromFile(file, sources, path);
  return value;
}

function fromEnvironment(name: string, sources: SecretSources, path: ConfigPath): Secret {
  const text = sources.environment[name];
  if (text === undefined || text === "") {
    const state = text === undefined ? "not set" : "empty";
    sources.report({
      path: [...path, "env"],
      text: `the environment variable ${name} is ${state}`,
      hint: "Set it where the server is started.",
    });
  }
  return new Secret(text ?? "");
}

function fromFile(file: string, sources: SecretSources, path: ConfigPath): Secret {
  const place = isAbsolute(file) ? file : join(sources.folder, file);
  let text = "";
  try {
    // Editors and `echo` end a file with a line feed, which no secret means.
    text = sources.readFile(place).replace(/\r?\n$/, "");
    if (text === "")
      sources.report({ path: [...path, "file"], text: `the file ${place} is empty` });
  } catch (thrown) {
    sources.report({
      path: [...path, "file"],
      text: `the file ${place} cannot be read: ${thrown instanceof Error ? thrown.message : "?"}`,
      hint: "It must exist, and the user of the server must be allowed to read it.",
    });
  }
  return new Secret(text);
}
