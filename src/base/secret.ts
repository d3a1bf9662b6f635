/**
 * A password, key or token that cannot be printed by accident: every way in which JavaScript turns a
 * value into text gives `***`. Only `reveal` gives the text, so that a search for it finds every
 * place where a secret leaves us.
 */
import { inspect } from "node:util";

/** Text that prints as `***`. */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** The text itself. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return "***";
  }

  toJSON(): string {
    return "***";
  }

  [inspect.custom](): string {
    return "***";
  }
}
