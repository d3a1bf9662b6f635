/**
 * Why a node cannot use a site that it should: the configuration lacks it, it does not answer, or its
 * log has ended.
 */
import { AppError } from "../base/error.ts";
import type { Roles } from "../cas/log/state.ts";

/** The roles name a site, `called` in words, that the configuration of this node does not have. */
export function lackingSite(
  id: string,
  how: { readonly called: string; readonly node: string; readonly has: readonly string[] },
): AppError {
  const { called, node, has } = how;
  const message = `The configuration of node ${node} lacks site ${called}; it has`;
  return new AppError("refused", `${message} ${has.join(", ")}.`, {
    guidance:
      "If the repository is kept there now, add the site to the configuration of this node, and " +
      "reload it (SIGHUP). Else this node sees another repository: mend what it names.",
    context: { reason: "site-unknown", node, site: id },
  });
}

/** A site that is needed does not answer. */
export function silentSite(name: string, node: string, error: AppError): AppError {
  return new AppError(error.kind, `Site ${name} cannot be used by node ${node}: ${error.message}`, {
    guidance: error.guidance ?? "Try again when it is back; reading goes on from the other sites.",
    retryable: error.retryable,
    context: { ...error.context, site: name },
    cause: error,
  });
}

/** Nothing may be written to the site that the roles name the primary. */
export function endedPrimary(roles: Roles): AppError {
  const called = nameInRoles(roles, roles.primary) ?? `site ${roles.primary}`;
  return new AppError("refused", `The log of the primary, ${called}, has ended.`, {
    guidance: "Promote a mirror: `astacus site promote NAME`.",
    context: { reason: "log-closed", site: roles.primary },
  });
}

/** Name and place of a site as the roles have them. */
export function nameInRoles(roles: Roles | undefined, id: string): string | undefined {
  const row = roles?.sites.find(({ site }) => site === id);
  return row === undefined ? undefined : `${row.name} (${row.location})`;
}
