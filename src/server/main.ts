/**
 * `astacus server`: listens at once, opens its node behind that, and ends within ten seconds of
 * SIGTERM with whatever ran journaled as cancelled. SIGHUP reads the configuration again; a wrong one
 * changes nothing and is logged.
 */
import { readFileSync } from "node:fs";
import { realClock } from "../base/clock.ts";
import { guardMemory } from "../base/memory-guard.ts";
import { sha256Hex } from "../base/hex.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import type { ScrubEvent } from "../cluster/scrub.ts";
import { createApp } from "./app.ts";
import { openDoors, openNode } from "./compose.ts";
import type { Config } from "./config.ts";
import { listen } from "./listen.ts";
import type { Listener } from "./listen.ts";
import { createLog } from "./log.ts";
import type { Log } from "./log.ts";
import { Metrics } from "./metrics.ts";
import { NodeRuntime } from "./node-runtime.ts";
import type { NodeApi, ServerContext } from "./server-context.ts";
import { VERSION } from "./version.ts";

/** SIGTERM to end; systemd sends SIGKILL much later. */
const STOP_MS_MAX = 9_000;
/** How long whoever asks for a reload is kept waiting for the node. */
const RELOAD_WAIT_MS = 30_000;

/** Runs until a signal ends it. `loadConfig` reads the file anew each time. */
export async function runServer(loadConfig: () => Config): Promise<void> {
  const config = loadConfig();
  const held: { runtime?: NodeRuntime } = {};
  const current = (): Config => held.runtime?.config ?? config;
  const log = createLog({
    write: (line) => void process.stderr.write(line),
    now: () => realClock.now(),
    level: () => current().logLevel,
    fields: { node: config.self.name },
  });
  const doors = openDoors({
    fetch,
    token: () => current().tokens.node,
    authority: () => readAuthority(current()),
  });
  const metrics = createMetrics(() => held.runtime);
  const context = createContext({ runtime: () => held.runtime, current, log, metrics, loadConfig });
  const app = createApp(context);
  const listener = listen(config.self.listen, (request, bindings) => app.fetch(request, bindings));
  const runtime = new NodeRuntime(config, {
    clock: realClock,
    log,
    version: VERSION,
    open: async (wanted, signal) =>
      await openNode(wanted, {
        doors,
        version: VERSION,
        onScrub: (event) => logScrub(event, log),
        signal,
      }),
  });
  held.runtime = runtime;
  log.info("listening", { url: listener.url, version: VERSION, cluster: config.cluster });
  const onHangup = (): void => {
    context.reload().catch((error: unknown) => log.error("the configuration was kept", { error }));
  };
  process.on("SIGHUP", onHangup);
  const guarded = new AbortController();
  void guardMemory(guarded.signal);
  const signal = await untilStopped();
  guarded.abort();
  process.off("SIGHUP", onHangup);
  log.info("stopping", { signal });
  await stop({ runtime, listener, log });
}

/** Resolves with the name of the first signal that asks for the end. */
async function untilStopped(): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => resolve(signal));
  return await promise;
}

async function stop(parts: {
  readonly runtime: NodeRuntime;
  readonly listener: Listener;
  readonly log: Log;
}): Promise<void> {
  const { runtime, listener, log } = parts;
  setTimeout(() => {
    log.error("not everything ended in time; the next start journals what ran as failed");
    // oxlint-disable-next-line unicorn/no-process-exit -- whatever hangs must not keep the process
    process.exit(1);
  }, STOP_MS_MAX).unref();
  try {
    await runtime[Symbol.asyncDispose]();
    await listener.stop(true);
    log.info("stopped");
  } catch (error) {
    log.error("stopping failed", { error });
    process.exitCode = 1;
  }
}

/** What scrubbing finds is for whoever reads the log: nobody waits for it. */
function logScrub(event: ScrubEvent, log: Log): void {
  const { site } = event;
  if (event.kind === "failed") {
    log.warn("scrubbing goes on later", { site, error: event.error });
    return;
  }
  for (const { object, message } of event.problems) {
    log.error("scrubbing found damage", { site, object, message });
  }
}

function createMetrics(runtime: () => NodeRuntime | undefined): Metrics {
  return new Metrics(
    {
      now: () => realClock.now(),
      isReady: () => runtime()?.readiness.ready === true,
      running: () => runtime()?.node?.member.operations.running() ?? [],
      sites: () => runtime()?.node?.counters() ?? [],
      backups: () => runtime()?.backups,
      damage: {
        scrub: () => runtime()?.node?.member.scrubber.figures() ?? [],
        readFaults: () => runtime()?.node?.member.sites.faults.counts ?? new Map(),
      },
      places: () => runtime()?.node?.member.siteStatuses ?? [],
    },
    VERSION,
  );
}

function createContext(parts: {
  readonly runtime: () => NodeRuntime | undefined;
  readonly current: () => Config;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly loadConfig: () => Config;
}): ServerContext {
  const { log, metrics, current } = parts;
  const mustGetRuntime = (): NodeRuntime => {
    const runtime = parts.runtime();
    if (runtime === undefined) throw new Error("no request is answered before there is a runtime");
    return runtime;
  };
  const node = (): NodeApi => mustGetRuntime().mustGetNode().member;
  return {
    version: VERSION,
    clock: realClock,
    log,
    config: current,
    node,
    readiness: () => mustGetRuntime().readiness,
    start(begin) {
      const api = node();
      const record = begin(api);
      const { id, kind } = record;
      log.info("an operation began", { operation: id, kind });
      api.operations.wait(id).then(
        (ended) => countEnd(ended, log, metrics),
        (error: unknown) => log.error("an operation was lost", { operation: id, kind, error }),
      );
      return record;
    },
    metrics: async () => await metrics.render(),
    async reload() {
      const config = parts.loadConfig();
      warnOfFixed(current(), config, log);
      mustGetRuntime().apply(config);
      log.info("the configuration was read again", { hash: config.hash });
    },
    whenApplied: async () => await mustGetRuntime().whenApplied(RELOAD_WAIT_MS),
    hashOnDisk: async () => sha256Hex(readFileSync(current().fileName)),
  };
}

function countEnd(record: OperationRecord, log: Log, metrics: Metrics): void {
  metrics.count(record);
  const { id, kind, state, error } = record;
  const durationMs = Date.parse(record.ended ?? record.started) - Date.parse(record.started);
  const fields = { operation: id, kind, state, durationMs };
  if (error === undefined) log.info("an operation ended", fields);
  else log.warn("an operation ended", { ...fields, failure: error });
}

/** What a running process cannot change. */
function warnOfFixed(before: Config, after: Config, log: Log): void {
  const fixed = (config: Config): string =>
    JSON.stringify([config.self.listen, config.self.data, config.self.name]);
  if (fixed(before) === fixed(after)) return;
  log.warn("`listen`, `data` and the node's name change with a restart only");
}

function readAuthority(config: Config): string | undefined {
  const file = config.self.listen.tls?.ca;
  return file === undefined ? undefined : readFileSync(file, "utf8");
}
