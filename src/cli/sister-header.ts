/**
 * Which repository a new site becomes a part of: the one that the other configured sites hold. A site
 * that cannot be asked could hold one, so a new id is drawn only when all have said that they do not.
 */
import type { Clock, Random } from "../base/doors.ts";
import { AppError, toAppError } from "../base/error.ts";
import type { RepositoryHeader } from "../cas/format/header.ts";
import { getHeader } from "../cas/log/header-object.ts";
import type { SiteConfig } from "../server/config.ts";
import { openSite } from "../server/open-site.ts";

type Doors = { readonly clock: Clock; readonly random: Random };

type Sister = { readonly location: string; readonly header: RepositoryHeader };

/**
 * The header of the other sites' repository; undefined where none of them holds one. `say` hears of
 * sites that could not be asked. Throws AppError `refused` where they hold several repositories, and
 * what the site said where it cannot be known whether there is one.
 */
export async function getSisterHeader(
  others: readonly SiteConfig[],
  doors: Doors,
  say: (message: string) => void,
): Promise<RepositoryHeader | undefined> {
  const found: Sister[] = [];
  const failures: AppError[] = [];
  for (const other of others) {
    try {
      const sister = await readSister(other, doors);
      if (sister !== undefined) found.push(sister);
    } catch (thrown) {
      const error = toAppError(thrown);
      failures.push(error);
      say(`Site ${other.name} could not be asked: ${error.message}`);
    }
  }
  const [first, ...rest] = found;
  if (first === undefined) {
    const failure = failures[0];
    if (failure !== undefined) throw unknowable(failure);
    return undefined;
  }
  const another = rest.find((one) => one.header.repository !== first.header.repository);
  if (another === undefined) return first.header;
  throw new AppError(
    "refused",
    `The configured sites hold two repositories: ${first.header.repository} at ${first.location}, ${another.header.repository} at ${another.location}.`,
    { guidance: "All sites of one file belong to one repository: take one of them out." },
  );
}

async function readSister(config: SiteConfig, doors: Doors): Promise<Sister | undefined> {
  let opened;
  try {
    opened = await openSite(config, doors);
  } catch (thrown) {
    // A folder that does not exist holds nothing.
    if (toAppError(thrown).kind === "not-found") return undefined;
    throw thrown;
  }
  await using site = opened.site;
  const found = await getHeader(site);
  return found === undefined ? undefined : { location: site.location, header: found.header };
}

function unknowable(cause: AppError): AppError {
  return new AppError(cause.kind, `It is not known which repository this is: ${cause.message}`, {
    guidance:
      "A site that cannot be asked may hold the repository that the new one belongs to. Make it " +
      "reachable, or take it out of the file if it is gone for ever.",
    cause,
  });
}
