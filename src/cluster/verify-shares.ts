/**
 * The product's part of a deep verification: after all chunks of a backup were proved, the shares of
 * its nodes are held against the checksums of the database itself, if its product can do that. What
 * it finds joins the report. Chunks that are damaged are in the report already, and end the share.
 */
import { AppError } from "../base/error.ts";
import { textFromPath } from "../base/path.ts";
import type { Manifest } from "../cas/format/manifest.ts";
import { readManifest } from "../cas/format/manifest.ts";
import type { Repository } from "../cas/log/repository.ts";
import type { BackupRecord } from "../cas/log/state.ts";
import type { ChunkSource } from "../cas/read/chunk-source.ts";
import { readStoredVolume } from "../cas/read/stored-volume.ts";
import type { VerifyReport } from "../cas/read/verify.ts";
import type { VerifyProblem } from "../cas/read/verify-problems.ts";
import { PROBLEM_COUNT_MAX } from "../cas/read/verify-problems.ts";
import type { Problem } from "../cas/write/volume-source.ts";
import { verifierOf } from "../products/create-verifier.ts";
import type { ShareVerifier } from "../products/share-verifier.ts";

/** What to look at, and with what. */
export type VerifySharesOptions = {
  readonly repository: Pick<Repository, "site">;
  readonly source: Pick<ChunkSource, "fetch" | "fetchMany"> & Partial<Pick<ChunkSource, "opener">>;
  /** Reading all files of all backups would cost their sum: one is looked at. */
  readonly backup: BackupRecord | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onNode?: (node: string) => void;
  /** That of the product, unless a test has another. */
  readonly verifierOf?: (product: string) => ShareVerifier | undefined;
};

/** The report with what the product found in the shares of a backup whose chunks are sound. */
export async function verifyShares(
  report: VerifyReport,
  options: VerifySharesOptions,
): Promise<VerifyReport> {
  const { backup, repository, signal } = options;
  const { opener } = options.source;
  if (opener?.canOpen() === false) return report;
  const isSound = report.backups.some(({ id, ok }) => ok && id === backup?.backup);
  if (!report.deep || backup === undefined || !isSound) return report;
  const verify = (options.verifierOf ?? verifierOf)(backup.product);
  if (verify === undefined) return report;
  const manifest = await readManifest(repository.site, backup, signal, opener);
  const problems: VerifyProblem[] = [];
  let problemCount = 0;
  for (const node of manifest.nodes) {
    options.onNode?.(node.name);
    for await (const problem of problemsOf(verify, manifest, node, options)) {
      problemCount += 1;
      const isNamed = report.problems.length + problems.length < PROBLEM_COUNT_MAX;
      if (isNamed) problems.push(toVerifyProblem(problem, node.name, backup.name));
    }
  }
  return {
    ...report,
    ok: report.ok && problemCount === 0,
    backups: report.backups.map((one) =>
      one.id === backup.backup ? { ...one, ok: problemCount === 0 } : one,
    ),
    problems: [...report.problems, ...problems],
    problemCount: report.problemCount + problemCount,
    sharesProved: manifest.nodes.length,
  };
}

async function* problemsOf(
  verify: ShareVerifier,
  manifest: Manifest,
  node: Manifest["nodes"][number],
  { source, signal }: VerifySharesOptions,
): AsyncGenerator<Problem, void, undefined> {
  try {
    yield* verify({
      node: node.name,
      volumes: node.volumes.map(({ name, listing }) => ({
        name,
        files: (prefix) => readStoredVolume({ listing, source, signal }, prefix),
      })),
      state: manifest.state,
      signal: signal ?? new AbortController().signal,
    });
  } catch (thrown) {
    if (!(thrown instanceof AppError) || thrown.kind !== "damaged") throw thrown;
    yield { path: "", kind: "damaged", message: thrown.message };
  }
}

function toVerifyProblem(problem: Problem, node: string, backup: string): VerifyProblem {
  const path = textFromPath(problem.path);
  const object = path === "" ? `node ${node}` : `${node}: ${path}`;
  const files = path === "" ? [] : [`${node}/${path}`];
  const { message } = problem;
  return { object, fault: "content", message, backups: [backup], files, fileCount: files.length };
}
