/**
 * What a verification found, by object: one problem an object and fault, with the backups and some
 * of the files that it hits. Memory: PROBLEM_COUNT_MAX problems of FILE_SAMPLE_COUNT_MAX names; what
 * comes after is counted.
 */
import { AppError } from "../../base/error.ts";

/** How an object is wrong. */
export type VerifyFault =
  | "missing"
  | "damaged"
  /** It is there, and the backup's lists do not name it: a cleanup may remove it. */
  | "unlisted"
  /** It is on its way out, though a listed backup needs it. */
  | "retired"
  /** Its bytes are what was stored, and not what the database's own checksum says. */
  | "content";

/** One thing that is wrong. */
export type VerifyProblem = {
  /** The key of the object, or the id of a chunk that is in no object. */
  readonly object: string;
  readonly fault: VerifyFault;
  readonly message: string;
  /** Names of the backups that need it. */
  readonly backups: readonly string[];
  /** Some of the files that it takes with it, as `node/volume/path` for people. */
  readonly files: readonly string[];
  /** Each backup counts its own. */
  readonly fileCount: number;
};

const FAULTS: readonly VerifyFault[] = ["missing", "damaged", "unlisted", "retired"];

type Draft = {
  readonly object: string;
  readonly fault: VerifyFault;
  readonly message: string;
  readonly backups: Set<string>;
  readonly files: string[];
  fileCount: number;
};

/** Problems that a report names. */
export const PROBLEM_COUNT_MAX = 1000;

/** Files that a problem names. */
export const FILE_SAMPLE_COUNT_MAX = 20;

/** Gathers problems. */
export class ProblemBook {
  readonly #drafts = new Map<string, Draft>();
  #leftOut = 0;

  get count(): number {
    return this.#drafts.size + this.#leftOut;
  }

  /** Notes a fault of an object; what is known already stays as it is. */
  add(object: string, fault: VerifyFault, message: string): void {
    const key = `${fault} ${object}`;
    if (this.#drafts.has(key)) return;
    if (this.#drafts.size >= PROBLEM_COUNT_MAX) this.#leftOut += 1;
    else {
      const backups = new Set<string>();
      this.#drafts.set(key, { object, fault, message, backups, files: [], fileCount: 0 });
    }
  }

  /** Notes that an object could not be read; what is no damage is thrown on. */
  addThrown(thrown: unknown, otherwise: string): string {
    if (!(thrown instanceof AppError) || thrown.kind !== "damaged") throw thrown;
    if (thrown.context["catalog"] === true) throw thrown;
    const object = objectOf(thrown) ?? otherwise;
    const fault = thrown.context["missing"] === true ? "missing" : "damaged";
    this.add(object, fault, thrown.message);
    return object;
  }

  /** Notes that a backup needs an object, whatever is wrong with it; false if nothing is. */
  addBackup(object: string, backup: string): boolean {
    const drafts = this.#of(object);
    for (const draft of drafts) draft.backups.add(backup);
    return drafts.length > 0;
  }

  /** Notes a file, or as many as `count`, that an object takes with it. */
  addFile(object: string, file: string, count = 1): void {
    for (const draft of this.#of(object)) {
      draft.fileCount += count;
      const isRoom = draft.files.length < FILE_SAMPLE_COUNT_MAX;
      if (isRoom && !draft.files.includes(file)) draft.files.push(file);
    }
  }

  /** Everything that was noted, in the order in which it was found. */
  list(): VerifyProblem[] {
    return Array.from(this.#drafts.values(), ({ backups, ...draft }) => ({
      ...draft,
      backups: [...backups],
    }));
  }

  #of(object: string): Draft[] {
    return FAULTS.flatMap((fault) => this.#drafts.get(`${fault} ${object}`) ?? []);
  }
}

/** The key of the object that an error of the reading side names. */
function objectOf(error: AppError): string | undefined {
  for (const name of ["pack", "key"]) {
    const value = error.context[name];
    if (typeof value === "string") return value;
  }
  return undefined;
}
