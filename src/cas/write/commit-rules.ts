/**
 * Rules of the commit protocol that tests switch off one by one, to see that each is needed: with
 * any of them off, the real code comes to a backup with a hole. Nobody else passes rules.
 */

/** The rules, by what they forbid. */
export type CommitRules = {
  /** Who uses which pack is asked again at each entry of the log that comes in between. */
  readonly redecide: boolean;
  /** An undo, and a pin of a forgotten backup, need every pack of the list. */
  readonly undoNeedsPacks: boolean;
  /** A deleted pack is known as deleted until no current segment mentions it. */
  readonly keepDeleted: boolean;
  /** A repack moves every frame that a listed or pinned backup uses. */
  readonly repackCovers: boolean;
};

/** All rules, as they must be. */
export const COMMIT_RULES: CommitRules = {
  redecide: true,
  undoNeedsPacks: true,
  keepDeleted: true,
  repackCovers: true,
};
