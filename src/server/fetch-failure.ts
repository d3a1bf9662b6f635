/**
 * Why a `fetch` failed, in a few words: what the runtime says is long, and guesses.
 */

const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there",
  ConnectionRefused: "nothing listens there",
  ECONNRESET: "the connection was broken off",
  ConnectionClosed: "the connection was broken off",
  ENOTFOUND: "the host name is not known",
  DNSLookupFailed: "the host name is not known",
  FailedToOpenSocket: "the host cannot be reached",
  EHOSTUNREACH: "the host cannot be reached",
  ENETUNREACH: "the network cannot be reached",
  ETIMEDOUT: "there was no answer in time",
};

/** The reason in words, or as the runtime says it. */
export function describeFetchFailure(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const code = "code" in thrown ? String(thrown.code) : "";
  return WORDS[code] ?? (code === "" ? thrown.message : `${thrown.message} (${code})`);
}
