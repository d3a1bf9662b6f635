/**
 * The text of a configuration file as values, with the place of each. YAML 1.2, of which JSON is a
 * part. A key without a value counts as left out, so that a section whose lines are all commented
 * out is one that is not there.
 */
import { isAlias, isMap, isNode, isScalar, isSeq, LineCounter, parseDocument, visit } from "yaml";
import type { Document, Node, Pair } from "yaml";
import type { ConfigPath } from "./config-outline.ts";

const TEXT_LENGTH_MAX = 1024 * 1024;
const DEPTH_MAX = 32;

/** A place in the text, both from 1. */
export type Place = { readonly line: number; readonly column: number };

/** A file that was read. */
export type ConfigSource = {
  /** The values; undefined if the text has no readable mapping at its top. */
  readonly value: Readonly<Record<string, unknown>> | undefined;
  /** The keys that have no value, and are left out of the values. */
  readonly empty: readonly ConfigPath[];
  /** What is wrong with the text as such. */
  readonly errors: readonly (Place & { readonly text: string; readonly hint?: string })[];
  /** Where a path is; where its nearest parent is, if it is missing. */
  locate(path: ConfigPath, isAtKey: boolean): Place;
};

/** Reads the text of a file; never throws for what is in it. */
export function readConfigSource(text: string): ConfigSource {
  const start = { line: 1, column: 1 };
  const failed = (message: string, hint?: string): ConfigSource => ({
    value: undefined,
    empty: [],
    errors: [{ ...start, text: message, ...(hint === undefined ? {} : { hint }) }],
    locate: () => start,
  });
  if (text.length > TEXT_LENGTH_MAX) return failed("the file is larger than 1 MiB");
  const lines = new LineCounter();
  // No pretty errors: they quote the text around, and there may be a secret in it.
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const placeOf = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(1, line), column: Math.max(1, col) };
  };
  const error = document.errors[0];
  if (error !== undefined) {
    // The first only: what follows a break in the syntax is mostly noise. What it quotes is cut off,
    // since that may be a secret too.
    const message = withoutStop(error.message).replace(/:?\s*".*$/s, "");
    const errors = [{ ...placeOf(error.pos[0]), text: `not valid YAML: ${message}` }];
    return { value: undefined, empty: [], errors, locate: () => start };
  }
  if (document.contents === null) {
    return failed("the file is empty; expected at least `cluster`, `product` and `sites`");
  }
  if (!isMap(document.contents)) return failed("expected keys and values at the top of the file");
  const lost = findLostAlias(document);
  if (lost !== undefined) {
    const error = { ...placeOf(lost), text: "an alias (*name) without its anchor (&name)" };
    return { value: undefined, empty: [], errors: [error], locate: () => start };
  }
  const plain = toPlain(document);
  if (typeof plain === "string") return failed(plain);
  return {
    value: withoutEmpty(plain) as Record<string, unknown>,
    empty: listEmpty(plain),
    errors: [],
    locate: (path, isAtKey) => locate(document, path, { isAtKey, placeOf }),
  };
}

/** The values, null for keys that have none; a message where the text cannot be turned into values. */
function toPlain(document: Document): Record<string, unknown> | string {
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (thrown) {
    return thrown instanceof Error ? `not usable: ${withoutStop(thrown.message)}` : "not usable";
  }
  if (isDeeperThan(value, DEPTH_MAX)) return `nested deeper than ${DEPTH_MAX} levels`;
  return value as Record<string, unknown>;
}

/** Where an alias is that has no anchor before it: text that begins with a star, mostly. */
function findLostAlias(document: Document): number | undefined {
  let lost: number | undefined;
  visit(document, {
    Alias: (_, alias) => {
      if (alias.resolve(document) !== undefined) return undefined;
      lost = startOf(alias) ?? 0;
      return visit.BREAK;
    },
  });
  return lost;
}

function withoutEmpty(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutEmpty);
  if (typeof value !== "object" || value === null) return value;
  const filled = Object.entries(value).filter(([, child]) => child !== null);
  return Object.fromEntries(filled.map(([key, child]) => [key, withoutEmpty(child)]));
}

/** Paths of all keys without a value. */
function listEmpty(value: unknown, path: ConfigPath = []): ConfigPath[] {
  if (typeof value !== "object" || value === null) return [];
  const isList = Array.isArray(value);
  return Object.entries(value).flatMap(([key, child]: [string, unknown]) => {
    if (child === null) return isList ? [] : [[...path, key]];
    return listEmpty(child, [...path, isList ? Number(key) : key]);
  });
}

function isDeeperThan(value: unknown, depth: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return depth === 0 || Object.values(value).some((child) => isDeeperThan(child, depth - 1));
}

function locate(
  document: Document,
  path: ConfigPath,
  how: { readonly isAtKey: boolean; readonly placeOf: (offset: number) => Place },
): Place {
  let node: Node | undefined = document.contents ?? undefined;
  let place = how.placeOf(node?.range?.[0] ?? 0);
  for (const [index, key] of path.entries()) {
    if (isAlias(node)) node = node.resolve(document);
    const pair: Pair | undefined = isMap(node) ? findPair(node.items, key) : undefined;
    const child: unknown = isSeq(node) && typeof key === "number" ? node.items[key] : pair?.value;
    const keyStart = startOf(pair?.key);
    if (keyStart !== undefined) place = how.placeOf(keyStart);
    if (!isNode(child)) return place;
    node = child;
    // A section's value starts on the next line: its key is the better place to look at.
    const isLastKey = index === path.length - 1 && how.isAtKey;
    const isBlock = pair !== undefined && !isScalar(child);
    const start = startOf(child);
    if (!isLastKey && !isBlock && start !== undefined) place = how.placeOf(start);
  }
  return place;
}

function findPair(items: readonly Pair[], key: string | number): Pair | undefined {
  return items.find((pair) => isScalar(pair.key) && String(pair.key.value) === String(key));
}

function startOf(node: unknown): number | undefined {
  return isNode(node) ? node.range?.[0] : undefined;
}

function withoutStop(message: string): string {
  return message.replace(/\.$/, "").replace(/^./, (letter) => letter.toLowerCase());
}
