/**
 * Checks what every restore from a site needs before it can ask for a pack: the header, the log, the
 * current index segments, the key objects and, if asked, manifests; each as the object that lies at
 * the site, since what this node has in its catalog helps nobody else. What the log has stopped to
 * name meanwhile is no fault. Memory: that of `verifyLog`, and `MANIFEST_CONCURRENCY` manifests.
 */
import { sha256Hex } from "../../base/hex.ts";
import { forEachConcurrent } from "../../base/semaphore.ts";
import { checkpointKey, keyKey, manifestKey } from "../format/ids.ts";
import { segmentKey } from "../format/index-segment.ts";
import type { Repository } from "../log/repository.ts";
import { isPinned } from "../log/state.ts";
import type { BackupRecord, RepositoryState } from "../log/state.ts";
import { verifyLog } from "./verify-log.ts";
import type { VerifyProblem } from "./verify-problems.ts";
import { ProblemBook } from "./verify-problems.ts";

const MANIFEST_CONCURRENCY = 8;

/** Prefixes of objects that the log may stop to name. */
const REPLACED_PREFIXES = ["index/", "manifest/", "key/", "checkpoint/"];

/** Reads all that is not a pack at a site, whole; what is wrong as of now. */
export async function verifySite(
  repository: Repository,
  options: {
    /** Those of listed and pinned backups too. */
    readonly manifests: boolean;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<VerifyProblem[]> {
  const { signal } = options;
  const state = await repository.catchUp(signal);
  const problems = new ProblemBook();
  const onRead = (): void => undefined;
  await verifyLog({ repository, state, deep: true, problems, onRead, signal });
  if (options.manifests) await verifyManifests(repository, { state, problems, signal });
  if (problems.count === 0) return [];
  const named = namedKeys(await repository.catchUp(signal));
  return problems.list().filter(({ object }) => {
    const isReplaced = REPLACED_PREFIXES.some((prefix) => object.startsWith(prefix));
    return !isReplaced || named.has(object);
  });
}

/** Current segments that this node could not read when it looked last. */
export function indexProblemsOf(repository: Repository): VerifyProblem[] {
  const problems = new ProblemBook();
  for (const [id, thrown] of repository.indexProblems) {
    const segment = repository.state.segments.get(id);
    if (segment !== undefined) problems.addThrown(thrown, segmentKey(id, segment.birth));
  }
  return problems.list();
}

async function verifyManifests(
  repository: Repository,
  options: {
    readonly state: RepositoryState;
    readonly problems: ProblemBook;
    readonly signal: AbortSignal | undefined;
  },
): Promise<void> {
  const { state, problems, signal } = options;
  await forEachConcurrent(
    heldBackups(state),
    MANIFEST_CONCURRENCY,
    async ({ name, manifest: { id, birth } }, inner) => {
      const key = manifestKey(id, birth);
      const bytes = await repository.site.get(key, { signal: inner });
      if (bytes === undefined) problems.add(key, "missing", `${key} is missing.`);
      else if (sha256Hex(bytes) !== id) {
        problems.add(key, "damaged", `${key} does not match its name.`);
      }
      problems.addBackup(key, name);
    },
    signal,
  );
}

/** Backups that must be readable: listed ones, and what pins hold. */
function heldBackups(state: RepositoryState): BackupRecord[] {
  return [...state.backups.values()].filter(
    ({ backup, forgotten }) => forgotten === undefined || isPinned(state, backup),
  );
}

function namedKeys(state: RepositoryState): Set<string> {
  const { checkpoint } = state;
  return new Set([
    ...state.segments.values().map(({ id, birth }) => segmentKey(id, birth)),
    ...heldBackups(state).map(({ manifest }) => manifestKey(manifest.id, manifest.birth)),
    ...state.keys.entries().map(([id, { birth }]) => keyKey(id, birth)),
    ...(checkpoint === undefined ? [] : [checkpointKey(checkpoint.sequence, checkpoint.hash)]),
  ]);
}
