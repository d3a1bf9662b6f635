/**
 * New recipients: every session key of the log is opened once with an identity, wrapped for the
 * recipients of now into a new key object, and named by a `rekey`. Contents are not touched. What was
 * wrapped before stays in the site, so that an old identity still opens what it could: rotation is for
 * what comes, not for what was.
 */
import { sha256Hex } from "../../base/hex.ts";
import type { SiteCall } from "../../sites/site.ts";
import { keyKey } from "../format/ids.ts";
import type { Repository } from "../log/repository.ts";
import { wrapFor } from "./age.ts";

/** How keys are rotated. */
export type RotateOptions = SiteCall & {
  readonly identities: readonly string[];
  readonly recipients: readonly string[];
  readonly operation: string;
  readonly onKey?: (done: number, total: number) => void;
};

/** What was done. */
export type RotateResult = { readonly rewrapped: number; readonly unchanged: number };

/** Keys of one entry. */
const KEY_COUNT_MAX = 10_000;

/**
 * Wraps all session keys for these recipients and no others. AppError `permission` if no identity
 * opens one of them; what was wrapped before it stays so, and the next run goes on.
 *
 * @example
 * await rotateKeys(repository, { identities, recipients, operation });
 */
export async function rotateKeys(
  repository: Repository,
  options: RotateOptions,
): Promise<RotateResult> {
  const { identities, operation, onKey, signal } = options;
  const call: SiteCall = signal === undefined ? {} : { signal };
  const recipients = [...new Set(options.recipients)].toSorted();
  const opener = repository.openerFor(identities);
  const state = await repository.catchUp(signal);
  const stale = [...state.keys].filter(([, key]) => !isFor(key.recipients, recipients));
  const unchanged = state.keys.size - stale.length;
  if (stale.length === 0) return { rewrapped: 0, unchanged };
  // Before anything is written: does an identity fit at all?
  await opener.sessionKey(stale[0]![0], call);
  // The objects get a birth that no former run has used, since a wrapped key never has the same bytes.
  const body = { text: "Session keys are wrapped for other recipients." };
  await repository.commit(() => ({ kind: "note", body }), { operation, ...call });
  for (let start = 0; start < stale.length; start += KEY_COUNT_MAX) {
    const keys: { id: string; birth: number; hash: string }[] = [];
    const birth = repository.state.sequence;
    for (const [id] of stale.slice(start, start + KEY_COUNT_MAX)) {
      const { key } = await opener.sessionKey(id, call);
      const wrapped = await wrapFor(recipients, key);
      const hash = sha256Hex(wrapped);
      await repository.putObject(keyKey(id, birth), wrapped, { ...call, sha256: hash });
      keys.push({ id, birth, hash });
      onKey?.(start + keys.length, stale.length);
    }
    const rekey = { kind: "rekey", body: { recipients, keys } } as const;
    await repository.commit(() => rekey, { operation, ...call });
  }
  return { rewrapped: stale.length, unchanged };
}

function isFor(one: readonly string[], other: readonly string[]): boolean {
  return one.toSorted().join(" ") === other.join(" ");
}
