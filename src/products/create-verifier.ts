/**
 * From the kind of a product, as manifests name it, to its verifier. Needs no configuration: a
 * backup is verified where its database is not known.
 */
import { verifyM3Share } from "./m3/share-verifier.ts";
import { verifyScriptedShare } from "./scripted-checksum.ts";
import type { ShareVerifier } from "./share-verifier.ts";

/** The verifier of a product's shares; undefined where the chunks' own hashes are all there is. */
export function verifierOf(productKind: string): ShareVerifier | undefined {
  switch (productKind) {
    case "m3":
      return verifyM3Share;
    case "scripted":
      return verifyScriptedShare;
    default:
      return undefined;
  }
}
