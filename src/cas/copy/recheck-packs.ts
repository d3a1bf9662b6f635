/**
 * Distrusted packs that are read again: a disk that was away, or a line that was bad, may have made
 * them look worse than they are. Memory: one pack.
 */
import { AppError } from "../../base/error.ts";
import { DistrustedPacks } from "../catalog/distrusted-packs.ts";
import type { Repository } from "../log/repository.ts";
import { readPack } from "./transfer-pack.ts";

/**
 * Relies again on those that are right in every byte, but for some that were just looked at. What
 * cannot be read now stays as it is.
 */
export async function recheckPacks(
  repository: Repository,
  except: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<void> {
  const { site, sealer, catalog } = repository;
  const distrusted = new DistrustedPacks(catalog);
  for (const { id, birth } of distrusted.list(repository.state)) {
    if (except.has(id)) continue;
    try {
      await readPack(site, { pack: id, birth }, { sealer, signal });
      distrusted.remove([id]);
    } catch (thrown) {
      signal?.throwIfAborted();
      if (!(thrown instanceof AppError)) throw thrown;
    }
  }
}
