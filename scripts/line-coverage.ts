/**
 * Line coverage from the LCOV files that `bun test --coverage` writes, added up over several runs:
 * a line counts as covered if any run came by.
 */
import { existsSync, readFileSync } from "node:fs";

/** Lines of some files, found and hit. */
export type Coverage = { readonly foundCount: number; readonly hitCount: number };

type Lines = Map<string, Map<number, number>>;

/** Reads LCOV files; a missing one adds nothing. */
export function readLines(paths: readonly string[]): Lines {
  const lines: Lines = new Map();
  for (const path of paths.filter(existsSync)) {
    let file = new Map<number, number>();
    for (const line of readFileSync(path, "utf8").split("\n")) {
      if (line.startsWith("SF:")) {
        const name = line.slice(3);
        file = lines.get(name) ?? new Map<number, number>();
        lines.set(name, file);
      } else if (line.startsWith("DA:")) {
        const [number = 0, hits = 0] = line.slice(3).split(",").map(Number);
        file.set(number, (file.get(number) ?? 0) + hits);
      }
    }
  }
  return lines;
}

/** Coverage of the files whose path begins with one of the prefixes. */
export function coverageOf(lines: Lines, prefixes: readonly string[]): Coverage {
  let foundCount = 0;
  let hitCount = 0;
  for (const [file, counts] of lines) {
    if (!prefixes.some((prefix) => file.startsWith(prefix))) continue;
    for (const hits of counts.values()) {
      foundCount += 1;
      if (hits > 0) hitCount += 1;
    }
  }
  return { foundCount, hitCount };
}

/** Covered lines in percent. */
export function percentOf({ foundCount, hitCount }: Coverage): number {
  return foundCount === 0 ? 0 : (100 * hitCount) / foundCount;
}
