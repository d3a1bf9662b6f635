/**
 * Folio itself, as small as it can be: a document is acknowledged when it is in the log; a flush
 * seals the log into a segment and only then removes it; a merge seals one segment out of all and
 * only then removes those. `read` gives what a start of Folio would find on the disk.
 */
import * as fs from "node:fs";
import { join } from "node:path";

type Document = { readonly sequence: number; readonly key: string; readonly text: string };

/** Work in steps, so that a capture can be let in between any two of them. */
export type Steps = Generator<undefined, void, undefined>;

/** One node of Folio on the real disk. */
export class FolioDatabase {
  readonly #root: string;
  #log = 1;
  #segment = 0;
  #sequence = 0;
  /** What `readFolio` must find. */
  readonly acknowledged = new Map<string, string>();

  constructor(root: string) {
    this.#root = root;
    for (const folder of ["wal", "segments"]) fs.mkdirSync(join(root, folder), { recursive: true });
    fs.writeFileSync(join(root, "lock"), "");
    fs.writeFileSync(this.#pathOfLog(), "");
  }

  put(key: string, text: string): void {
    this.#sequence += 1;
    const document: Document = { sequence: this.#sequence, key, text };
    fs.appendFileSync(this.#pathOfLog(), `${JSON.stringify(document)}\n`);
    this.acknowledged.set(key, text);
  }

  /** A new log is begun, the old one is sealed into a segment and then removed. */
  *flush(): Steps {
    const log = this.#pathOfLog();
    this.#log += 1;
    fs.writeFileSync(this.#pathOfLog(), "");
    yield;
    yield* this.#seal(fs.readFileSync(log, "utf8"));
    fs.unlinkSync(log);
  }

  /** All segments become one. Seals go first: documents without a seal count for nothing. */
  *merge(): Steps {
    const folder = join(this.#root, "segments");
    const names = fs.readdirSync(folder).toSorted();
    const docs = names.filter((name) => name.endsWith(".docs"));
    const seals = names.filter((name) => name.endsWith(".seal"));
    yield* this.#seal(docs.map((name) => fs.readFileSync(join(folder, name), "utf8")).join(""));
    for (const name of [...seals, ...docs]) {
      fs.unlinkSync(join(folder, name));
      yield;
    }
  }

  *#seal(lines: string): Steps {
    this.#segment += 1;
    const path = join(this.#root, "segments", numbered(this.#segment));
    fs.writeFileSync(`${path}.docs`, lines);
    yield;
    fs.writeFileSync(`${path}.seal`, String(Bun.hash.adler32(lines)));
    yield;
  }

  #pathOfLog(): string {
    return join(this.#root, "wal", `${numbered(this.#log)}.wal`);
  }
}

function numbered(number: number): string {
  return String(number).padStart(6, "0");
}

/** The newest of each document below a folder with `wal` and `segments`. */
export function readFolio(root: string): Map<string, string> {
  const newest = new Map<string, Document>();
  const segments = fs.readdirSync(join(root, "segments")).map((name) => join("segments", name));
  const sealed = segments.filter((name) => segments.includes(name.replace(/docs$/, "seal")));
  const logs = fs.readdirSync(join(root, "wal")).map((name) => join("wal", name));
  for (const name of [...sealed.filter((one) => one.endsWith(".docs")), ...logs]) {
    for (const line of fs.readFileSync(join(root, name), "utf8").split("\n")) {
      if (line === "") continue;
      const document = JSON.parse(line) as Document;
      if (document.sequence > (newest.get(document.key)?.sequence ?? 0)) {
        newest.set(document.key, document);
      }
    }
  }
  return new Map([...newest].map(([key, { text }]) => [key, text]));
}
