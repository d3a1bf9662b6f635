/**
 * `astacus config check` and `astacus config convert`.
 */
import { realOutside } from "../base/outside.ts";
import { AppError, toAppError } from "../base/error.ts";
import { joinPath, textFromPath } from "../base/path.ts";
import { createProduct } from "../products/create-product.ts";
import type { ProductCheck } from "../products/product.ts";
import { readHeader } from "../cas/log/header-object.ts";
import { sealerFor } from "../cas/keys/repository-encryption.ts";
import type { RepositoryEncryption } from "../cas/keys/repository-encryption.ts";
import { convertConfig } from "../server/convert-config.ts";
import type { Config } from "../server/config.ts";
import { openEncryption } from "../server/config-encryption.ts";
import { openSite } from "../server/open-site.ts";
import { describeChecks } from "./check-lines.ts";
import { print } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { EXIT } from "./exit-code.ts";
import { loadConfig, readTextFile } from "./load-config.ts";
import { OFFLINE_DOORS } from "./offline.ts";

/** Checks the file, then the roots, the data folder and the sites, on this machine. */
export async function check(run: CommandRun, own: { readonly node?: string }): Promise<CommandEnd> {
  const file = run.options.config;
  if (file === undefined) throw needsFile("config check");
  const config = loadConfig(file, own.node);
  const checks = [
    checkData(config),
    ...(await checkProduct(config)),
    ...(await checkSites(config)),
  ];
  const isGood = checks.every((one) => one.ok);
  const answer = { file, node: config.self.name, cluster: config.cluster, ok: isGood, checks };
  print(run, answer, () => {
    const head = `${file} is valid; node ${config.self.name} of cluster ${config.cluster}.`;
    return [head, ...describeChecks(checks)].join("\n");
  });
  return isGood ? EXIT.done : EXIT.failed;
}

/** Prints a file of the original as one of ours; what needs a person goes to stderr. */
export async function convert(
  run: CommandRun,
  file: string,
  own: { readonly cluster?: string },
): Promise<CommandEnd> {
  const old = readTextFile(file);
  const options = own.cluster === undefined ? {} : { clusterName: own.cluster };
  const converted = convertConfig(old, options);
  print(run, converted, () => converted.text.trimEnd());
  for (const note of converted.notes) run.terminal.say(`note: ${note}`);
  return EXIT.done;
}

/** The error for a command that works on a file. */
export function needsFile(command: string): AppError {
  return new AppError("usage", `\`astacus ${command}\` needs -c FILE.`);
}

async function checkProduct(config: Config): Promise<readonly ProductCheck[]> {
  const network = {
    call: () => Promise.reject(new AppError("internal", "A check calls no other node.")),
  };
  return await createProduct(config.self.product).check({
    doors: { ...OFFLINE_DOORS, network, outside: realOutside },
    operation: "0".repeat(32),
    signal: new AbortController().signal,
    say: () => {},
  });
}

/** The folder may be made by the server; what it lies in must be there then, or can be made too. */
function checkData(config: Config): ProductCheck {
  const { files, random } = OFFLINE_DOORS;
  const what = `data ${textFromPath(config.self.data)}`;
  let folder = config.self.data;
  try {
    while (files.lstat(folder) === undefined) folder = folder.slice(0, folder.lastIndexOf("/"));
    const probe = joinPath(
      folder,
      `.astacus-check-${Buffer.from(random.bytes(6)).toString("hex")}`,
    );
    files.close(files.open(probe, "create"));
    files.unlink(probe);
    return { what, ok: true, message: "can be written" };
  } catch (thrown) {
    const failed = failedCheck(what, thrown);
    return { ...failed, message: `cannot be written: ${failed.message}` };
  }
}

async function checkSites(config: Config): Promise<ProductCheck[]> {
  const checks: ProductCheck[] = [];
  const { encryption, problem } = await checkEncryption(config);
  if (problem !== undefined) checks.push(problem);
  let first: Named | undefined;
  for (const each of config.sites) {
    const { name } = each;
    const what = `site ${name}`;
    try {
      const { site } = await openSite(each, OFFLINE_DOORS);
      await using _ = site;
      const { header } = await readHeader(site, {});
      const { repository } = header;
      first ??= { name, repository };
      if (repository !== first.repository) throw otherRepository({ name, repository }, first);
      // With keys that could not be read, that is the problem, and not the site.
      if (problem === undefined) sealerFor(header, encryption, site);
      checks.push({ what, ok: true, message: `repository ${repository}` });
    } catch (thrown) {
      checks.push(failedCheck(what, thrown));
    }
  }
  return checks;
}

/** The keys, opened as the server does. */
async function checkEncryption(config: Config): Promise<{
  readonly encryption?: RepositoryEncryption | undefined;
  readonly problem?: ProductCheck;
}> {
  try {
    return { encryption: await openEncryption(config) };
  } catch (thrown) {
    return { problem: failedCheck("encryption", thrown) };
  }
}

type Named = { readonly name: string; readonly repository: string };

function otherRepository(one: Named, first: Named): AppError {
  const message = `Site ${one.name} holds repository ${one.repository}, and ${first.name} holds ${first.repository}.`;
  return new AppError("config", message, {
    guidance:
      "All sites of a file hold the same repository: name the right place, or make a mirror at an " +
      "empty one with `astacus site init`.",
    context: { site: one.name, found: one.repository, known: first.repository },
  });
}

function failedCheck(what: string, thrown: unknown): ProductCheck {
  const { message, guidance } = toAppError(thrown);
  return { what, ok: false, message, ...(guidance === undefined ? {} : { guidance }) };
}
