/**
 * Roles in the logs of several sites: the best ones win, and are copied to whoever has worse ones.
 */
import type { EntryBodies } from "../log/entry.ts";
import type { CommitResult, Repository } from "../log/repository.ts";
import { areBetterRoles } from "../log/state.ts";
import type { RepositoryState, Roles } from "../log/state.ts";
import { callOf } from "./copy-side.ts";

/** How something small is committed. */
export type CommitHow = { readonly operation: string; readonly signal?: AbortSignal | undefined };

/** The roles that count among all that these sites say; undefined if nobody has spoken. */
export function bestRoles(states: Iterable<Pick<RepositoryState, "roles">>): Roles | undefined {
  let best: Roles | undefined;
  for (const { roles } of states) {
    if (roles !== undefined && areBetterRoles(roles, best)) best = roles;
  }
  return best;
}

/** Commits roles at a site; nothing if its own are as good, or if its log has ended. */
export async function commitRoles(
  repository: Repository,
  body: EntryBodies["role"],
  how: CommitHow,
): Promise<CommitResult> {
  const { operation, signal } = how;
  if ((await repository.catchUp(signal)).closed !== undefined) return { outcome: "nothing" };
  return await repository.commit(
    ({ roles }) => (areBetterRoles(body, roles) ? { kind: "role", body } : undefined),
    { operation, ...callOf(signal) },
  );
}
