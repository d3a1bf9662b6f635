/**
 * What is missing may have been removed by others since the log was read (docs/format.md section 3):
 * then the log says so, and it is no damage. These helpers read the log on before they believe that
 * something is wrong.
 */
import { AppError } from "../../base/error.ts";
import { damagedError } from "../format/bytes.ts";
import type { DecodedSegment } from "../format/index-segment.ts";
import { decodeSegment, segmentKey } from "../format/index-segment.ts";
import type { Repository } from "../log/repository.ts";
import type { RepositoryState } from "../log/state.ts";

/**
 * Decides on a state; if that meets damage and the log has grown meanwhile, on the newer state. A
 * commit on the old state is lost then, and is decided again anyway.
 */
export async function decideMoving<Decision>(
  repository: Repository,
  state: RepositoryState,
  options: {
    readonly signal: AbortSignal | undefined;
    readonly decide: (state: RepositoryState) => Promise<Decision>;
  },
): Promise<Decision> {
  const { signal, decide } = options;
  for (let at = state; ;) {
    try {
      return await decide(at);
    } catch (thrown) {
      if (!(thrown instanceof AppError) || thrown.kind !== "damaged") throw thrown;
      const now = await repository.catchUp(signal);
      if (now.sequence === at.sequence) throw thrown;
      at = now;
    }
  }
}

/** A segment that was current; undefined if it is missing and no longer is. */
export async function getSegment(
  repository: Repository,
  { id, birth }: { readonly id: string; readonly birth: number },
  signal: AbortSignal | undefined,
): Promise<DecodedSegment | undefined> {
  const key = segmentKey(id, birth);
  const bytes = await repository.site.get(key, signal === undefined ? {} : { signal });
  if (bytes !== undefined) return decodeSegment(bytes, id, repository.sealer);
  const state = await repository.catchUp(signal);
  if (state.segments.get(id)?.birth !== birth) return undefined;
  throw damagedError(`Index segment ${key}`, "is missing", { segment: id });
}
