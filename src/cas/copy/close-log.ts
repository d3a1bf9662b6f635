/**
 * The end of a site's log. Whoever meets it goes to the successor; what lies there can still be read
 * and copied, and nothing is removed any more.
 */
import { AppError } from "../../base/error.ts";
import { closedLog } from "../log/history-errors.ts";
import type { Repository } from "../log/repository.ts";
import type { Closed, RepositoryState } from "../log/state.ts";
import { callOf } from "./copy-side.ts";
import type { CommitHow } from "./roles.ts";

/**
 * Closes a log; one that was closed for the same successor is fine. Throws AppError `refused` if its
 * site is the primary by its own log, where each switch to it is committed first.
 */
export async function closeLog(
  repository: Repository,
  options: CommitHow & {
    /** The id of the site that takes its place. */
    readonly successor: string;
    readonly reason: string;
  },
): Promise<Closed> {
  const { operation, signal, successor, reason } = options;
  if (successor === repository.header.site) {
    throw new AppError("usage", `${repository.site.location} cannot be its own successor.`);
  }
  const body = { successor, reason };
  const before = (await repository.catchUp(signal)).closed;
  if (before === undefined) {
    try {
      const decide = (now: RepositoryState) => {
        mustNotBePrimary(repository, now);
        return { kind: "closed", body } as const;
      };
      await repository.commit(decide, { operation, ...callOf(signal) });
    } catch (thrown) {
      // Somebody else may have closed it between our look and our commit.
      if (repository.state.closed === undefined) throw thrown;
    }
  }
  const { site, state } = repository;
  const { closed } = state;
  if (closed === undefined) throw new AppError("internal", "A log was closed and is not.");
  if (closed.successor !== successor) throw closedLog(site, state, closed);
  return closed;
}

function mustNotBePrimary({ site }: Repository, { roles, siteId }: RepositoryState): void {
  if (roles?.primary !== siteId) return;
  throw new AppError("refused", `${site.location} is the primary: its log cannot end.`, {
    guidance: "It was made the primary meanwhile. Migrate to another site first.",
    context: { site: site.name, reason: "is-primary" },
  });
}
