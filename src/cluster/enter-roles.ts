/**
 * Roles are committed at the site that they make the primary, and only then at the others. Of several
 * entries of one rank its log takes the first, so that the others never get another one.
 */
import { AppError } from "../base/error.ts";
import type { EntryBodies } from "../cas/log/entry.ts";
import { areBetterRoles } from "../cas/log/state.ts";
import { areSameRoles } from "./site-roles.ts";
import type { OpenSite } from "./site-views.ts";

/**
 * Commits roles at every one of these sites that lacks them, the primary first; true if the sites are
 * to be looked at again, since something was committed, or since the primary has others by now, and
 * then nothing was. A mirror that fails gets them at the next look. Throws AppError `unavailable` if
 * the primary of the roles is not among the sites, `refused` if its log has ended.
 */
export async function enterRoles(
  answering: readonly OpenSite[],
  body: EntryBodies["role"],
  how: { readonly operation: string; readonly signal: AbortSignal | undefined },
): Promise<boolean> {
  const primary = answering.find(({ id }) => id === body.primary);
  mustBeOpen(primary, body);
  if (await isOvertaken(answering, body, how.signal)) return true;
  const isEnteredThere = await enterAt(primary, body, how);
  if (!areSameRoles(body, primary.repository.state.roles)) return true;
  let count = isEnteredThere ? 1 : 0;
  for (const site of answering) {
    const isArchive = body.sites.some(({ site: id, role }) => id === site.id && role === "archive");
    if (site === primary || isArchive) continue;
    try {
      if (await enterAt(site, body, how)) count += 1;
    } catch {
      how.signal?.throwIfAborted();
    }
  }
  return count > 0;
}

/**
 * True if roles that are above all that the last look saw are not above all any longer: a look may
 * wait for a silent site, and a switch goes to another log than an entry that it would undo.
 */
async function isOvertaken(
  answering: readonly OpenSite[],
  { epoch }: EntryBodies["role"],
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const isAbove = ({ repository }: OpenSite): boolean =>
    (repository.state.roles?.epoch ?? 0) < epoch;
  if (!answering.every(isAbove)) return false;
  await Promise.allSettled(answering.map(({ repository }) => repository.catchUp(signal)));
  signal?.throwIfAborted();
  return !answering.every(isAbove);
}

/** Commits at one site, unless its roles are as good by then or its log has ended. */
async function enterAt(
  { repository }: OpenSite,
  body: EntryBodies["role"],
  how: { readonly operation: string; readonly signal: AbortSignal | undefined },
): Promise<boolean> {
  const { operation, signal } = how;
  const isLacking = ({ closed, roles }: typeof repository.state): boolean =>
    closed === undefined && areBetterRoles(body, roles);
  if (!isLacking(repository.state)) return false;
  const { outcome } = await repository.commit(
    (state) => (isLacking(state) ? { kind: "role", body } : undefined),
    { operation, ...(signal === undefined ? {} : { signal }) },
  );
  return outcome === "won";
}

function mustBeOpen(
  primary: OpenSite | undefined,
  body: EntryBodies["role"],
): asserts primary is OpenSite {
  const row = body.sites.find(({ site }) => site === body.primary);
  const called = row === undefined ? `site ${body.primary}` : `${row.name} (${row.location})`;
  if (primary === undefined) {
    throw new AppError("unavailable", `Roles are entered at the primary first: ${called}.`, {
      guidance: "It does not answer. Try again when it does, or promote a mirror.",
      retryable: true,
      context: { site: body.primary },
    });
  }
  if (primary.repository.state.closed === undefined) return;
  throw new AppError("refused", `The log of ${called} has ended: it cannot be the primary.`, {
    guidance: "Promote a mirror: `astacus site promote NAME`.",
    context: { site: body.primary, reason: "log-closed" },
  });
}
