/**
 * The rules about the source itself that a linter does not know, or that must not depend on one:
 * layers, doors, names and sizes. A failure lists each place as `file:line: what is wrong`.
 * Imports and code are read from Bun's transpiler and a small scanner that blanks comments and
 * strings, so that what is only mentioned does not count.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

const ROOT = dirname(import.meta.dir);
const FILE_LINES_MAX = 500;

/** What each layer may import besides itself; `src/astacus.ts` composes and may import all. */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  sites: ["base"],
  cas: ["base", "sites"],
  products: ["base", "cas"],
  cluster: ["base", "sites", "cas", "products"],
  server: ["base", "sites", "cas", "products", "cluster", "cli"],
  cli: ["base", "sites", "cas", "products", "cluster", "server"],
};

/** Edges that the table does not have, each with its reason. */
const LAYER_EXCEPTIONS = new Set([
  // The list of doors names the type of the fourth one; nothing but the type.
  "src/base/doors.ts -> src/sites/site.ts",
]);

/** Who may reach the outside directly: real doors, stores, entry points. All others use a door. */
const OUTSIDE_ALLOWED: readonly RegExp[] = [
  /^src\/base\/(clock|random|file-system|platform|databases|outside|network|file)\.ts$/,
  /^src\/sites\//,
  /^src\/cas\/([^/]*-)?workers?(-[^/]*)?\.ts$/,
  /^src\/(server|cli)\/(.*\/)?(main|listen|serve|config|[^/]*-process)\.ts$/,
  /^src\/cli\//,
  /^src\/astacus\.ts$/,
];

/** What counts as reaching the outside, in code without comments and strings. */
const OUTSIDE_CALLS: readonly (readonly [RegExp, string])[] = [
  [/\bDate\.now\b|\bnew Date\(\s*\)|\bperformance\.now\b|\bBun\.nanoseconds\b/, "Clock.now"],
  [/(?<![.\w])(setTimeout|setInterval|setImmediate)\b|\bBun\.sleep\w*\b/, "Clock.sleep"],
  [/\bMath\.random\b|\bcrypto\.(getRandomValues|randomUUID)\b|\brandomBytes\(/, "Random"],
  [/\bprocess\.env\b|\bBun\.env\b|\bimport\.meta\.env\b/, "the configuration"],
  [/(?<![.\w])fetch\((?!\w+\??:)/, "Outside.fetch or Network"],
  [/\bBun\.(file|write|spawn|spawnSync|\$|connect|listen|serve|S3Client|s3)\b/, "a door"],
];

const OUTSIDE_MODULES =
  /^(node:)?(fs|fs\/promises|http|https|http2|net|tls|dgram|dns|child_process|timers)$/;

/** Built from parts, so that this file does not hold what it looks for. */
const MACHINE_PATHS = new RegExp(`(^|[\\s"'\`(=:])/(${["work", "root"].join("|")})/`);

/** Tokens that hide code-like text; template literals are taken apart in `blankTemplate`. */
const HIDING =
  /\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\[\s\S]|[^`\\])*`|(?<=[=(,:?!&|;]\s*)\/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/[dgimsuvy]*/g;

type Source = {
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
  /** The text with comments and the insides of strings blanked, line by line as before. */
  readonly code: readonly string[];
  readonly imports: readonly string[];
};

const SOURCES = list("{src,test,scripts,bench}/**/*.ts").map(readSource);
const OURS = SOURCES.filter(({ path }) => path.startsWith("src/"));

describe("layers", () => {
  test("imports point downwards only", () => {
    const wrong = OURS.flatMap((source) => wrongImports(source));
    expect(wrong).toEqual([]);
  });

  test("every folder of src is a layer that the table knows", () => {
    const wrong = OURS.filter(({ path }) => {
      const layer = layerOf(path);
      return path !== "src/astacus.ts" && (layer === undefined || !Object.hasOwn(LAYERS, layer));
    });
    expect(wrong.map(({ path }) => `${path}: belongs to no layer`)).toEqual([]);
  });

  test("an exception of the table imports a type and no code", () => {
    const wrong = [...LAYER_EXCEPTIONS].filter((edge) => {
      const [path = ""] = edge.split(" -> ");
      const text = readFileSync(join(ROOT, path), "utf8");
      return /^import (?!type )[^;]*from "\.\.\/sites\//m.test(text);
    });
    expect(wrong).toEqual([]);
  });

  test("src imports neither tests nor scripts", () => {
    const wrong = OURS.flatMap(({ path, imports }) =>
      imports
        .filter((name) => name.startsWith("."))
        .map((name) => normalize(join(dirname(path), name)))
        .filter((target) => !target.startsWith("src/") && target !== "package.json")
        .map((target) => `${path}: imports ${target}, which lies outside src`),
    );
    expect(wrong).toEqual([]);
  });
});

describe("doors", () => {
  test("only doors, stores and entry points reach the outside", () => {
    const wrong = OURS.filter(
      ({ path }) => !OUTSIDE_ALLOWED.some((rule) => rule.test(path)),
    ).flatMap((source) => [...wrongCalls(source), ...wrongModules(source)]);
    expect(wrong).toEqual([]);
  });
});

describe("files", () => {
  test("are named for what they hold: no utils.ts, no index.ts", () => {
    const vague = /\/(index|utils?|helpers?|common|misc)\.ts$/;
    expect(SOURCES.map(({ path }) => path).filter((path) => vague.test(path))).toEqual([]);
  });

  test("are named in kebab-case", () => {
    const kebab = /^([a-z0-9]+(-[a-z0-9]+)*\/)*[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9-]+)*\.ts$/;
    expect(SOURCES.map(({ path }) => path).filter((path) => !kebab.test(path))).toEqual([]);
  });

  test("open with a block comment that says what they are", () => {
    const wrong = SOURCES.filter(({ text }) => !/^(#![^\n]*\n)?\/\*\*?\s/.test(text));
    expect(wrong.map(({ path }) => `${path}:1: does not open with /** … */`)).toEqual([]);
  });

  test("of src have at most 500 lines", () => {
    const wrong = OURS.filter(({ lines }) => lines.length > FILE_LINES_MAX);
    expect(wrong.map(({ path, lines }) => `${path}: ${lines.length} lines`)).toEqual([]);
  });

  test("end relative imports with .ts", () => {
    const wrong = SOURCES.flatMap(({ path, imports }) =>
      imports
        .filter((name) => name.startsWith(".") && !/\.(ts|json|wasm|html|css|svg)$/.test(name))
        .map((name) => `${path}: imports "${name}" without its ending`),
    );
    expect(wrong).toEqual([]);
  });

  test("use named exports only", () => {
    const wrong = OURS.flatMap((source) =>
      matchingLines(source, /^export (default|\*)/, "exports"),
    );
    expect(wrong).toEqual([]);
  });

  test("carry no open end without the number of its issue", () => {
    const open = /\b(TODO|FIXME|XXX|HACK)\b(?!\(#?\d+\))/;
    const wrong = SOURCES.filter(({ path }) => path !== "test/tidy.test.ts").flatMap((source) =>
      source.lines.flatMap((line, index) =>
        open.test(line) && !/["'`=]TODO/.test(line)
          ? [`${source.path}:${index + 1}: write @TODO(issue number), or do it`]
          : [],
      ),
    );
    expect(wrong).toEqual([]);
  });
});

test("no file names a path of somebody's machine", () => {
  const texts = list("{src,test,scripts,bench,docs,contrib,.ci}/**/*").concat(
    list("*.{md,json,ts,toml}"),
    ["dev"].filter((path) => existsSync(join(ROOT, path))),
  );
  const wrong = texts.flatMap((path) => {
    const text = readFileSync(join(ROOT, path), "utf8");
    if (text.includes("\0")) return [];
    return text
      .split("\n")
      .flatMap((line, index) =>
        MACHINE_PATHS.test(line) ? [`${path}:${index + 1}: ${line}`] : [],
      );
  });
  expect(wrong).toEqual([]);
});

describe("the scanner of this test", () => {
  test("blanks comments and strings and keeps code", () => {
    const code = blank(
      'a; // Date.now()\n/* fetch( */ b;\nconst c = "process.env";\n' +
        "const d = `x${Date.now()}y`; const e = /['\"`]/; f;",
    );
    expect(code.split("\n").map((line) => line.trimEnd())).toEqual([
      "a;",
      "              b;".slice(1),
      'const c = "           ";',
      "const d = ` ${Date.now()} `; const e = /['\"`]/; f;",
    ]);
  });

  test("sees each forbidden call", () => {
    const calls = ["Date.now()", "new Date()", "setTimeout(f, 1)", "Math.random()", "process.env"];
    const seen = [...calls, 'fetch("x")', "Bun.file(x)"].map((text) => {
      const source = {
        path: "src/cas/x.ts",
        text,
        lines: [text],
        code: [blank(text)],
        imports: [],
      };
      return wrongCalls(source).length;
    });
    expect(seen).toEqual([1, 1, 1, 1, 1, 1, 1]);
  });

  test("sees an upward import", () => {
    const imports = ["../server/app.ts", "../base/error.ts"];
    const source = { path: "src/cas/x.ts", text: "", lines: [], code: [], imports };
    expect(wrongImports(source)).toEqual([
      "src/cas/x.ts: cas must not import server (src/server/app.ts)",
    ]);
  });
});

function wrongImports({ path, imports }: Source): string[] {
  const layer = layerOf(path);
  if (layer === undefined) return [];
  return imports.flatMap((name) => {
    if (!name.startsWith(".")) return [];
    const target = normalize(join(dirname(path), name));
    const other = target === "src/astacus.ts" ? "astacus.ts" : layerOf(target);
    if (other === undefined || other === layer) return [];
    if (LAYERS[layer]?.includes(other) === true) return [];
    if (LAYER_EXCEPTIONS.has(`${path} -> ${target}`)) return [];
    return [`${path}: ${layer} must not import ${other} (${target})`];
  });
}

function wrongCalls(source: Source): string[] {
  return OUTSIDE_CALLS.flatMap(([pattern, door]) =>
    matchingLines(source, pattern, `goes past a door; use ${door}:`),
  );
}

function wrongModules({ path, imports }: Source): string[] {
  return imports
    .filter((name) => OUTSIDE_MODULES.test(name))
    .map((name) => `${path}: imports ${name}; use a door (src/base/doors.ts)`);
}

function matchingLines({ path, code }: Source, pattern: RegExp, what: string): string[] {
  return code.flatMap((line, index) => {
    const found = pattern.exec(line)?.[0];
    return found === undefined ? [] : [`${path}:${index + 1}: ${what} ${found}`];
  });
}

/** `cas` for `src/cas/format/pack.ts`, undefined outside the folders of src. */
function layerOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1];
}

function list(pattern: string): string[] {
  return [...new Bun.Glob(pattern).scanSync({ cwd: ROOT, dot: true })]
    .filter((path) => !/(^|\/)(node_modules|chunker-wasm|fixtures|vectors)\//.test(path))
    .toSorted();
}

function readSource(path: string): Source {
  const text = readFileSync(join(ROOT, path), "utf8");
  const lines = text.trimEnd().split("\n");
  return { path, text, lines, code: blank(text).split("\n"), imports: importsOf(text) };
}

/** Names in import and export-from declarations, types included, and in literal `import()`. */
function importsOf(text: string): string[] {
  const declared = /^\s*(?:import|export)\b[^;"'`]*?(?:from\s*)?["']([^"']+)["']/gm;
  const dynamic = /\bimport\(\s*["']([^"']+)["']/g;
  return [...text.matchAll(declared), ...text.matchAll(dynamic)].map(([, name = ""]) => name);
}

function blank(text: string): string {
  return text.replaceAll(HIDING, (token) => {
    if (token.startsWith("/") && token[1] !== "/" && token[1] !== "*") return token;
    if (token.startsWith("/")) return spaces(token);
    const inside = token.slice(1, -1);
    const quote = token[0] ?? "";
    return quote + (quote === "`" ? blankTemplate(inside) : spaces(inside)) + quote;
  });
}

/** Keeps `${…}` (without braces inside), blanks the rest. */
function blankTemplate(inside: string): string {
  return inside
    .split(/(\$\{[^{}]*\})/)
    .map((part) => (part.startsWith("${") ? part : spaces(part)))
    .join("");
}

function spaces(text: string): string {
  return text.replaceAll(/[^\n]/g, " ");
}
