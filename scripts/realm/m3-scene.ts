/**
 * A stage for scenarios: a real M3 cluster, servers of Astacus beside it, a load whose ledger says
 * what was acknowledged when, and the check that counts. Disposing ends all processes.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { EXIT } from "../../src/cli/exit-code.ts";
import type { Missing } from "../real/missing.ts";
import type { ProcessCluster } from "../scenario-cluster.ts";
import { besideM3 } from "./m3-astacus.ts";
import type { BesideOptions } from "./m3-astacus.ts";
import { checkM3 } from "./m3-check.ts";
import type { CheckOptions, CheckResult } from "./m3-check.ts";
import { loadM3 } from "./m3-load.ts";
import type { LoadResult } from "./m3-load.ts";
import { M3Realm } from "./m3-realm.ts";
import type { M3Settings } from "./m3-settings.ts";

/** What a stage is made of. */
export type SceneOptions = {
  /** Absent or empty. */
  readonly folder: string;
  readonly settings?: Partial<M3Settings>;
  readonly product?: readonly string[];
  /** YAML after the rest of the configuration. */
  readonly more?: string;
  /** Folder of a repository that is there already. */
  readonly siteFolder?: string;
  /** A ledger that is there already. */
  readonly ledgerFile?: string;
  readonly runAs?: BesideOptions["runAs"];
  /** Start etcd only, and no node: for restores into an empty cluster. */
  readonly isEmpty?: boolean;
};

/** The answer of a backup, as far as scenarios look. */
export type BackupAnswer = {
  readonly name: string;
  readonly complete: boolean;
  readonly degraded: boolean;
  readonly problems: readonly string[];
  readonly readBytes: number;
  readonly totals: {
    readonly files: number;
    readonly bytes: number;
    readonly newBytes: number;
    readonly storedBytes: number;
  };
};

/** What a check found, in one line of figures. */
export type Checked = {
  readonly points: number;
  readonly missing: number;
  readonly wrong: number;
  readonly result: CheckResult;
};

/** The stage. */
export class M3Scene implements AsyncDisposable {
  readonly folder: string;
  readonly realm: M3Realm;
  readonly astacus: ProcessCluster;
  readonly siteFolder: string;
  readonly ledgerFile: string;
  #load: { readonly stop: AbortController; readonly end: Promise<LoadResult> } | undefined;

  private constructor(options: SceneOptions, realm: M3Realm, astacus: ProcessCluster) {
    this.folder = options.folder;
    this.realm = realm;
    this.astacus = astacus;
    this.siteFolder = options.siteFolder ?? join(options.folder, "site");
    this.ledgerFile = options.ledgerFile ?? join(options.folder, "ledger");
  }

  /** A running M3 (unless it is to be empty) and running servers; what is missing if M3 cannot be had. */
  static async create(options: SceneOptions): Promise<M3Scene | Missing> {
    fs.mkdirSync(options.folder, { recursive: true });
    const realm = await M3Realm.create({
      folder: join(options.folder, "realm"),
      settings: { writeConsistency: "all", ...options.settings },
    });
    if ("missing" in realm) return realm;
    try {
      if (options.isEmpty === true) await realm.startEtcd();
      else await realm.up();
      const site = options.siteFolder ?? join(options.folder, "site");
      const astacus = await besideM3(realm, {
        folder: join(options.folder, "astacus"),
        site: `{name: disk, type: directory, path: "${site}"}`,
        product: options.product ?? [],
        more: options.more ?? "",
        ...(options.runAs === undefined ? {} : { runAs: options.runAs }),
      });
      for (const node of realm.nodes) fs.mkdirSync(node.dataFolder, { recursive: true });
      if (!fs.existsSync(join(site, "astacus.json")) && options.siteFolder === undefined) {
        const init = await astacus.run(["site", "init", "-c", astacus.config]);
        if (init.code !== 0) throw new Error(init.stderr);
      }
      await astacus.startAll();
      return new M3Scene(options, realm, astacus);
    } catch (thrown) {
      await realm[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  /** Writes until `endLoad`, every series ten times a second. */
  beginLoad(seriesCount: number = 10): void {
    const stop = new AbortController();
    const { ledgerFile, realm } = this;
    const end = loadM3(realm, { ledgerFile, seriesCount, signal: stop.signal });
    end.catch(() => undefined); // told by endLoad
    this.#load = { stop, end };
  }

  async endLoad(): Promise<LoadResult | undefined> {
    const load = this.#load;
    this.#load = undefined;
    load?.stop.abort();
    return await load?.end;
  }

  /** Backs up; the time before which everything durable must be in it comes with the answer. */
  async backup(args: readonly string[] = []): Promise<BackupAnswer & { readonly safeMs: number }> {
    // What the commit log has not been flushed of is not M3's own promise either.
    const safeMs = Date.now() - 2 * this.realm.commitLogFlushIntervalMs;
    const end = await this.astacus.cli(["backup", ...args, "--json"]);
    // A backup that is marked incomplete is one all the same.
    if (end.code !== 0 && end.code !== EXIT.incomplete) throw new Error(end.stderr);
    const { result } = JSON.parse(end.stdout) as { result: BackupAnswer };
    return { ...result, safeMs };
  }

  /** Ends M3 at once and removes its files from all nodes and all of its state in etcd. */
  async wipeAll(): Promise<void> {
    await this.realm.killAll();
    for (const node of this.realm.nodes) this.realm.wipeNode(node.number);
    await this.wipeEtcd();
  }

  /** A new, empty etcd in place of the old one. */
  async wipeEtcd(): Promise<void> {
    await this.realm.stopEtcd("kill");
    fs.rmSync(join(this.realm.folder, "etcd"), { recursive: true, force: true });
    await this.realm.startEtcd();
  }

  async restore(backup: string, args: readonly string[] = []): Promise<void> {
    await this.astacus.json(["restore", "--backup", backup, "--yes", ...args]);
  }

  /** Starts M3 on what is there, and waits until it serves. */
  async bootstrap(): Promise<void> {
    await this.realm.startAll();
    await this.realm.untilBootstrapped();
  }

  /** Counts the points of the ledger that were acknowledged before `beforeMs`. */
  async check(beforeMs: number, options: Partial<CheckOptions> = {}): Promise<Checked> {
    const { ledgerFile, realm } = this;
    const result = await checkM3(realm, { ledgerFile, beforeMs, everyReplica: true, ...options });
    const add = (pick: (view: CheckResult["views"][number]) => number): number =>
      result.views.reduce((sum, view) => sum + pick(view), 0);
    return {
      points: result.expectedCount,
      missing: add((view) => view.missingCount),
      wrong: add((view) => view.wrongCount),
      result,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#load?.stop.abort();
    await this.astacus[Symbol.asyncDispose]();
    await this.realm[Symbol.asyncDispose]();
  }
}
