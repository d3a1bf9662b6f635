/**
 * The content checks that products name, by name. Workers load this module by its address: it must
 * pull in nothing that a worker cannot have.
 */
import type { CheckSource, ContentCheck, ContentChecks } from "../cas/write/content-check.ts";
import { Adler32 } from "./m3/adler32.ts";
import { CommitLogCheck } from "./m3/commit-log-check.ts";

/** By the names that products use in `VolumeSource.check`. */
export const contentChecks: ContentChecks = {
  adler32: () => new Adler32Check(),
  "m3-commit-log": (start) => new CommitLogCheck(start),
};

/** For planes of any kind: the checks themselves, and where workers find them. */
export const checkSource: CheckSource = { checks: contentChecks, module: import.meta.url };

/** Adler-32 of what is shown; the finding is the number. */
class Adler32Check implements ContentCheck {
  readonly #sum = new Adler32();

  update(bytes: Uint8Array): void {
    this.#sum.update(bytes);
  }

  finish(): number {
    return this.#sum.value;
  }
}
