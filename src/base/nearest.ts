/**
 * "Did you mean …?": the known word that is closest to a mistyped one. Says nothing rather than
 * something far-fetched.
 */
import { distance } from "fastest-levenshtein";

/**
 * The candidate that `word` was probably meant to be; undefined if none is close. Case, `-` and `_`
 * make no difference, so `keep_last` finds `keepLast`.
 */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  const plain = simplified(word);
  // About one slip in three letters; a two-letter word may have one.
  const distanceMax = Math.max(1, Math.floor(plain.length / 3));
  let best: { readonly candidate: string; readonly far: number } | undefined;
  for (const candidate of candidates) {
    const far = distance(plain, simplified(candidate));
    if (far <= distanceMax && (best === undefined || far < best.far)) best = { candidate, far };
  }
  return best?.candidate;
}

function simplified(word: string): string {
  return word.toLowerCase().replaceAll(/[-_\s]/g, "");
}
