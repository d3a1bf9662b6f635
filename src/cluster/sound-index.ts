/**
 * The index of chunks is a cache, and a row of it that has rotted looks like a chunk that is in no
 * pack. Before anybody believes that the repository is damaged, the index is built again from the
 * site's segments, which are checked by their hashes, and the work is done once more.
 */
import { AppError } from "../base/error.ts";
import type { Repository } from "../cas/log/repository.ts";

/** Does the work; if it meets damage, once more over an index that was built again. */
export async function withSoundIndex<Result>(
  repository: Repository,
  signal: AbortSignal,
  work: () => Promise<Result>,
): Promise<Result> {
  try {
    return await work();
  } catch (thrown) {
    if (!isDamaged(thrown)) throw thrown;
    await repository.rebuildIndex(signal);
    return await work();
  }
}

/** True if stored bytes, or what the catalog says of them, are not what they should be. */
export function isDamaged(thrown: unknown): thrown is AppError {
  return thrown instanceof AppError && thrown.kind === "damaged";
}

/** The same error for work that cannot be repeated in place, but by a next attempt. */
export function worthAnotherAttempt(error: AppError): AppError {
  return new AppError(error.kind, error.message, {
    ...(error.guidance === undefined ? {} : { guidance: error.guidance }),
    context: error.context,
    retryable: true,
    cause: error,
  });
}
