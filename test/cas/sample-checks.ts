/**
 * Content checks for tests, loaded by workers as a product's would be.
 */
import type { CheckSource, ContentChecks } from "../../src/cas/write/content-check.ts";

/** By name. */
export const contentChecks: ContentChecks = {
  /** Where it began and the hash of all that it saw. */
  seen: ({ offset, verifiedBytes }) => {
    const hash = new Bun.CryptoHasher("sha256");
    return {
      update: (bytes) => void hash.update(bytes),
      finish: () => ({ offset, verifiedBytes, sha256: hash.digest("hex") }),
    };
  },
  "fails-to-begin": () => {
    throw new Error("no beginning");
  },
  "fails-on-bytes": () => ({
    update() {
      throw new Error("these bytes are too much");
    },
    finish: () => null,
  }),
  "fails-to-finish": () => ({
    update: () => undefined,
    finish() {
      throw new Error("no end");
    },
  }),
};

/** The same for planes. */
export const sampleChecks: CheckSource = { checks: contentChecks, module: import.meta.url };
