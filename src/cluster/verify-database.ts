/**
 * Asks the running database whether it holds what a backup says, through the product of this node.
 * The repository is read for the manifest alone; nothing is written anywhere.
 */
import { AppError } from "../base/error.ts";
import { findBackup } from "../cas/log/find-backup.ts";
import { newestComplete } from "../cas/log/state.ts";
import type { ProductCheck } from "../products/product.ts";
import type { CoordinatorParts } from "./coordinator-parts.ts";
import type { OperationContext } from "./operations.ts";

/** What was found; plain JSON. */
export type DatabaseReport = {
  readonly ok: boolean;
  readonly backup: { readonly id: string; readonly name: string };
  readonly checks: readonly ProductCheck[];
};

/**
 * Holds the database against a backup: the newest complete one, unless another is named.
 * @throws AppError `refused` if the product cannot ask its database; `not-found` without a backup.
 */
export async function verifyDatabase(
  parts: CoordinatorParts,
  context: OperationContext,
  request: { readonly backup?: string },
): Promise<DatabaseReport> {
  const { config, doors, product, repository } = parts;
  const { signal } = context;
  if (product.checkDatabase === undefined) {
    throw new AppError("refused", `The product ${product.kind} has no database to ask.`, {
      guidance: "Leave out --database: `verify` and `verify --deep` check the backup itself.",
    });
  }
  const state = await repository.catchUp(signal);
  const backup =
    request.backup === undefined
      ? newestComplete(state, config.cluster)
      : findBackup(state, request.backup, config.cluster, { forgotten: true });
  if (backup === undefined) {
    throw new AppError("not-found", "There is no complete backup to compare the database with.", {
      guidance: "Name one; `astacus list` shows what there is.",
    });
  }
  const manifest = await parts.site.readManifest(backup, signal);
  context.progress({ phase: "database" });
  const checks = await product.checkDatabase(
    { doors, operation: context.id, signal, say: (message) => context.say(message) },
    { state: manifest.state, nodes: manifest.nodes.map(({ name }) => name) },
  );
  return {
    ok: checks.every(({ ok }) => ok),
    backup: { id: backup.backup, name: backup.name },
    checks,
  };
}
