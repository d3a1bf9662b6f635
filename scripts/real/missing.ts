/**
 * What a function answers that would start a real part for tests, and cannot on this machine.
 */

/** Why there is no server: the name of what is missing, with what was said about it. */
export type Missing = { readonly missing: string };
