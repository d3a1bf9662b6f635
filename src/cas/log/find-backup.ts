/**
 * Finding a backup by what people type: its name, its id, the first digits of its id, or nothing
 * (or `latest`) for the newest complete one. Several backups of one name are told apart by id.
 */
import { AppError } from "../../base/error.ts";
import type { BackupRecord, RepositoryState } from "./state.ts";
import { listedBackups, newestComplete } from "./state.ts";

/** What people say for the newest complete backup. */
const NEWEST = "latest";

/** Shortest prefix of an id that counts. */
const ID_PREFIX_LENGTH_MIN = 6;

/**
 * The backup that `wanted` names among those listed (and, if asked, forgotten). Throws AppError
 * `not-found`, or `usage` if the name fits several.
 */
export function findBackup(
  state: RepositoryState,
  wanted: string | undefined,
  cluster: string | undefined,
  options: { readonly forgotten?: boolean } = {},
): BackupRecord {
  if (wanted === undefined || wanted === "" || wanted === NEWEST) {
    const newest = newestComplete(state, cluster);
    if (newest !== undefined) return newest;
    throw new AppError("not-found", "There is no complete backup yet.", {
      guidance: "Make one with `astacus backup`; `astacus list` shows incomplete ones.",
    });
  }
  const all = options.forgotten === true ? [...state.backups.values()] : listedBackups(state);
  const found = all.filter((backup) => matches(backup, wanted));
  const only = found[0];
  if (only !== undefined && found.length === 1) return only;
  if (only === undefined) {
    throw new AppError("not-found", `There is no backup ${wanted}.`, {
      guidance: "`astacus list` shows what there is; --all shows forgotten ones too.",
    });
  }
  throw new AppError("usage", `${found.length} backups are called ${wanted}.`, {
    guidance: `Give an id: ${found.map((backup) => backup.backup.slice(0, 12)).join(", ")}.`,
  });
}

function matches(backup: BackupRecord, wanted: string): boolean {
  // The original's full names carried this prefix, and scripts still give it.
  const bare = wanted.startsWith("backup-") ? wanted.slice("backup-".length) : wanted;
  if (backup.name === wanted || backup.name === bare || backup.backup === wanted) return true;
  return wanted.length >= ID_PREFIX_LENGTH_MIN && backup.backup.startsWith(wanted);
}
