/**
 * The header at a site: reading it, refusing what is not the repository that was meant, and making a
 * new one. Only `site init` (and the quick start) makes one, so a directory that is not mounted is
 * never taken for a new repository.
 */
import packageJson from "../../../package.json" with { type: "json" };
import type { Doors } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import type { Site, SiteCall } from "../../sites/site.ts";
import { prepareEntry } from "./commit.ts";
import {
  decodeHeader,
  encodeHeader,
  FORMAT_VERSION,
  HEADER_KEY,
  headerHash,
} from "../format/header.ts";
import type { ChunkerRule, RepositoryHeader } from "../format/header.ts";
import { drawId, logKey } from "../format/ids.ts";
import type { NodeKeys } from "../format/node-keys.ts";
import { PLAIN_SEALER } from "../format/seal.ts";
import type { Sealer } from "../format/seal.ts";
import { encryptionHeader, sealerFor } from "../keys/repository-encryption.ts";
import { emptyState } from "./state.ts";
import { findFirstTip } from "./tip.ts";

/** A header and the hash of its bytes. */
export type FoundHeader = { readonly header: RepositoryHeader; readonly hash: string };

/** What the configuration remembers of a site. */
export type ExpectedIds = { readonly repository?: string; readonly site?: string };

/** Reads the header of a site; refuses a site that has none, or another one than is expected. */
export async function readHeader(
  site: Site,
  options: SiteCall & { readonly expected?: ExpectedIds } = {},
): Promise<FoundHeader> {
  const { expected, ...call } = options;
  const found = await getHeader(site, call);
  if (found === undefined) throw missingHeader(site);
  const { header } = found;
  for (const what of ["repository", "site"] as const) {
    const wanted = expected?.[what];
    if (wanted === undefined || wanted === header[what]) continue;
    const where = `${site.location} holds ${what} ${header[what]}`;
    throw new AppError("refused", `${where}, and the configuration names ${wanted}.`, {
      guidance:
        "Check that the right directory is mounted or the right bucket is named. If the site was " +
        "changed on purpose, change the configuration.",
      context: { site: site.name, known: wanted, found: header[what] },
    });
  }
  return found;
}

/** What a new repository is made of. */
export type InitOptions = SiteCall & {
  readonly doors: Pick<Doors, "clock" | "random">;
  readonly chunker: ChunkerRule;
  readonly node?: string;
  /** The repository that this site becomes another copy of. */
  readonly repository?: string;
  /** Makes it an encrypted one. */
  readonly keys?: NodeKeys | undefined;
};

/** Makes a repository at a site: header and entry 1. What an interrupted call began is finished. */
export async function initRepository(site: Site, options: InitOptions): Promise<RepositoryHeader> {
  const { clock, random } = options.doors;
  const call: SiteCall = options.signal === undefined ? {} : { signal: options.signal };
  let found = await getHeader(site, call);
  if ((await findFirstTip(site, call)).sequence > 0) throw taken(site);
  const wanted = options.repository;
  if (found !== undefined && wanted !== undefined && found.header.repository !== wanted) {
    throw taken(site);
  }
  if (found === undefined) {
    const header: RepositoryHeader = {
      format: "astacus",
      version: FORMAT_VERSION,
      repository: options.repository ?? drawId(random),
      site: drawId(random),
      created: new Date(clock.now()).toISOString(),
      hash: "sha256",
      chunker: options.chunker,
      encryption: encryptionHeader(options.keys),
    };
    const bytes = encodeHeader(header);
    if ((await site.put(HEADER_KEY, bytes, call)) === "exists") throw taken(site);
    found = { header, hash: headerHash(bytes) };
  }
  const { header, hash } = found;
  const draft = { kind: "note", body: { text: "The log begins.", header: hash } } as const;
  const entry = prepareEntry(emptyState(hash, header), draft, {
    clock,
    random,
    operation: drawId(random),
    writer: { node: options.node ?? "site init", version: packageJson.version },
    checkpoint: undefined,
    births: null,
    sealer: sealerOf(header, options.keys, site),
  });
  if ((await site.put(logKey(1), entry.bytes, call)) === "exists") throw taken(site);
  return header;
}

/** The header of a site, if it has one. */
export async function getHeader(site: Site, call: SiteCall = {}): Promise<FoundHeader | undefined> {
  const bytes = await site.get(HEADER_KEY, call);
  if (bytes === undefined) return undefined;
  return { header: decodeHeader(bytes, site.location), hash: headerHash(bytes) };
}

function sealerOf(header: RepositoryHeader, keys: NodeKeys | undefined, site: Site): Sealer {
  if (keys === undefined && header.encryption === null) return PLAIN_SEALER;
  return sealerFor(header, keys === undefined ? undefined : { keys, recipients: [] }, site);
}

function missingHeader(site: Site): AppError {
  return new AppError("refused", `There is no repository at ${site.location}.`, {
    guidance:
      "Is the directory mounted, and the bucket and prefix the right one? If there never was a " +
      "repository here, make one with `astacus site init`.",
    context: { site: site.name, location: site.location, reason: "no-repository" },
  });
}

function taken(site: Site): AppError {
  return new AppError("conflict", `There is a repository at ${site.location} already.`, {
    guidance: "Nothing was changed. Choose another directory, bucket or prefix for a new one.",
    context: { site: site.name, location: site.location },
  });
}
