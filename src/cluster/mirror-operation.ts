/**
 * What mirrors get of a backup: at its start they are announced with the births under which packs may
 * be sent to them; after its commit they are brought what they lack. No mirror ever fails a backup.
 */
import type { CoordinatorParts } from "./coordinator-parts.ts";
import type { LeaseMirror } from "./protocol.ts";

/** The mirrors that answer now, and the births of what is sent to them. */
export async function announceMirrors(
  { sites, site }: Pick<CoordinatorParts, "sites" | "site">,
  signal: AbortSignal,
): Promise<LeaseMirror[]> {
  const now = await sites.look(signal, { maxAgeMs: MIRROR_LOOK_MS });
  return now.sites.flatMap(({ role, open, name }) =>
    role !== "mirror" || open === undefined || open.id === site.id
      ? []
      : [{ site: open.id, name, birth: open.repository.state.sequence }],
  );
}

/** The primary was found by a look at all sites; what that saw of mirrors is new enough. */
const MIRROR_LOOK_MS = 10_000;
