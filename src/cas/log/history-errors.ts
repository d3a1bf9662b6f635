/**
 * What is said when a site is not what this node has seen before. All of these stop before anything
 * is written, name both sides, and say what to do.
 */
import { AppError } from "../../base/error.ts";
import type { Site } from "../../sites/site.ts";
import { catalogLocation } from "../catalog/catalog.ts";
import type { Catalog } from "../catalog/catalog.ts";
import type { Binding } from "../catalog/catalog-log.ts";
import type { RepositoryHeader } from "../format/header.ts";
import { logKey } from "../format/ids.ts";
import type { Closed, RepositoryState } from "./state.ts";

/** Where the two histories lie. */
export type Place = { readonly site: Site; readonly catalog: Catalog };

/** The site holds another repository, or another log of it, than the catalog knows. */
export function otherSite(place: Place, header: RepositoryHeader, binding: Binding): AppError {
  const { site } = place;
  const known = `repository ${binding.repository}, site ${binding.site}`;
  const found = `repository ${header.repository}, site ${header.site}`;
  const message = `${site.location} holds ${found}; the local catalog belongs to ${known}.`;
  return new AppError("refused", message, {
    guidance:
      "Check that the right directory is mounted or the right bucket is named. If the site was " +
      `changed on purpose, remove the catalog ${catalogLocation(place.catalog)}.`,
    context: { site: site.name, known: binding.site, found: header.site },
  });
}

/** An entry that this node has read is another one now. */
export function otherHistory(
  place: Place,
  entry: { readonly sequence: number; readonly known: string; readonly found: string },
): AppError {
  const { site } = place;
  const where = `${logKey(entry.sequence)} at ${site.location}`;
  return new AppError("refused", `${where} is another entry than this node has read before.`, {
    guidance:
      "The site was replaced by another history: an older copy that went its own way, or another " +
      "directory or bucket. Bring the former site back, or, if this one is meant, remove the " +
      `catalog ${catalogLocation(place.catalog)}.`,
    context: { site: site.name, ...entry },
  });
}

/** An entry that this node has read is gone: a gap, or a log that was set back. */
export function setBack(place: Place, known: number, tip: number): AppError {
  const { site } = place;
  const context = { site: site.name, sequence: known, tip };
  if (tip > known) {
    const message = `${logKey(known)} is missing at ${site.location}, and later entries are there.`;
    return new AppError("damaged", message, {
      guidance:
        "Nothing is written to a log with a gap. This node's catalog holds the entry and can put " +
        "it back as a log copy (`astacus site check`).",
      context,
    });
  }
  const message = `The log at ${site.location} ends before entry ${known}, which this node has read.`;
  return new AppError("refused", message, {
    guidance:
      "The site was set back: an older copy is mounted, or entries were removed. Bring the newer " +
      `one back, or, if this one is meant, remove the catalog ${catalogLocation(place.catalog)}.`,
    context,
  });
}

/** A header with nothing behind it. */
export function emptyLog(site: Site): AppError {
  return new AppError("damaged", `${site.location} has a header and no log.`, {
    guidance:
      "If `astacus site init` was interrupted, run it again. If there were backups here, the log " +
      "was removed: bring it back from another copy of the site.",
    context: { site: site.name },
  });
}

/** The log has ended: what is to be written belongs to its successor. */
export function closedLog(
  site: Site,
  { roles }: Pick<RepositoryState, "roles">,
  closed: Closed,
): AppError {
  const { successor, sequence, reason } = closed;
  const known = roles?.sites.find((one) => one.site === successor);
  const next = known === undefined ? `site ${successor}` : `${known.name} (${known.location})`;
  const message = `${site.location} was closed by entry ${sequence} (${reason}); its successor is ${next}.`;
  return new AppError("refused", message, {
    guidance:
      `Add ${next} to this node's configuration and write there. What lies here can still be read, ` +
      "and nothing is removed from it any more.",
    context: { reason: "closed", site: site.name, successor, sequence },
  });
}
