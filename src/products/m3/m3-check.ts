/**
 * What `astacus config check` asks of M3: that its files can be listed and linked, and that etcd
 * answers with a placement which the configured nodes are in.
 */
import { toAppError } from "../../base/error.ts";
import { makeFolders } from "../../base/folders.ts";
import { joinPath, pathFromText, textFromPath } from "../../base/path.ts";
import { openEtcd } from "../etcd/etcd-client.ts";
import type { PhaseContext, ProductCheck } from "../product.ts";
import { readClusterState } from "./cluster-state.ts";
import type { M3Config } from "./m3-config.ts";

/** Tries what backups and restores will do. */
export async function checkM3(
  config: M3Config,
  context: PhaseContext,
): Promise<readonly ProductCheck[]> {
  const root = `M3's files in ${textFromPath(config.root)}`;
  return [
    await tryIt(root, "can be listed", () => {
      const { files } = context.doors;
      files.readDirectory(joinPath(config.root, "commitlogs"));
      files.readDirectory(joinPath(config.root, "data"));
    }),
    await tryIt(root, "can be linked", () => linkOne(config, context)),
    await checkEtcd(config, context),
  ];
}

/** Links a commit log, which M3 always has: other owners' files may be protected from that. */
function linkOne(config: M3Config, context: PhaseContext): void {
  const { files, random } = context.doors;
  const logs = joinPath(config.root, "commitlogs");
  const name = files.readDirectory(logs).find((each) => each.endsWith(".db"));
  const folder =
    config.captures === undefined
      ? joinPath(config.root, ".astacus")
      : pathFromText(config.captures);
  const isNew = files.lstat(folder) === undefined;
  if (isNew) makeFolders(files, folder, 0o700);
  const suffix = Buffer.from(random.bytes(6)).toString("hex");
  const probe = joinPath(folder, `.astacus-check-${suffix}`);
  if (name === undefined) files.close(files.open(probe, "create"));
  else files.link(joinPath(logs, name), probe);
  files.unlink(probe);
  if (isNew) files.removeDirectory(folder);
}

async function checkEtcd(config: M3Config, context: PhaseContext): Promise<ProductCheck> {
  const { environment, service, zone } = config;
  const what = `M3's state in etcd, environment ${environment}`;
  try {
    const client = openEtcd(config.etcd, context.doors);
    const { signal } = context;
    const state = await readClusterState(client, { environment, service, zone, signal });
    const { placement, namespaces } = state;
    const strangers = Object.entries(config.instances)
      .map(([node, { id }]) => id ?? node)
      .filter((id) => !placement.instances.some((instance) => instance.id === id));
    if (strangers.length > 0) {
      const message = `the placement has no instance ${strangers.join(", ")}`;
      const ids = placement.instances.map(({ id }) => id).join(", ");
      return { what, ok: false, message, guidance: `Mend product.instances; it has ${ids}.` };
    }
    const message =
      `${placement.instances.length} instances, ${placement.shardCount} shards, ` +
      `namespaces ${namespaces.map(({ name }) => name).join(", ")}`;
    return { what, ok: true, message };
  } catch (thrown) {
    const { message, guidance } = toAppError(thrown);
    return { what, ok: false, message, ...(guidance === undefined ? {} : { guidance }) };
  }
}

async function tryIt(
  what: string,
  success: string,
  attempt: () => void | Promise<void>,
): Promise<ProductCheck> {
  try {
    await attempt();
    return { what, ok: true, message: success };
  } catch (thrown) {
    const { message, guidance } = toAppError(thrown);
    const advice = guidance === undefined ? {} : { guidance };
    return { what, ok: false, message: `not so: ${message}`, ...advice };
  }
}
