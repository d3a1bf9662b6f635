/**
 * `astacus config check` and `astacus config convert`.
 */
import { realOutside } from "../base/outside.ts";
import { AppError, toAppError } from "../base/error.ts";
import { joinPath, textFromPath } from "../base/path.ts";
import { createProduct } from "../products/create-product.ts";
import type { ProductCheck } from "../products/product.ts";
import { readHeader } from "../cas/log/header-object.ts";
import { convertConfig } from "../server/convert-config.ts";
import type { Config } from "../server/config.ts";
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
    const { message, guidance } = toAppError(thrown);
    const advice = guidance === undefined ? {} : { guidance };
    return { what, ok: false, message: `cannot be written: ${message}`, ...advice };
  }
}

async function checkSites(config: Config): Promise<ProductCheck[]> {
  const checks: ProductCheck[] = [];
  for (const each of config.sites) {
    const what = `site ${each.name}`;
    try {
      const { site } = await openSite(each, OFFLINE_DOORS);
      await using _ = site;
      const { header } = await readHeader(site, {});
      checks.push({ what, ok: true, message: `repository ${header.repository}` });
    } catch (thrown) {
      const { message, guidance } = toAppError(thrown);
      const advice = guidance === undefined ? {} : { guidance };
      checks.push({ what, ok: false, message, ...advice });
    }
  }
  return checks;
}
