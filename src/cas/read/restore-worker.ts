/**
 * Entry point of a restore worker: one `RestoreLaneCore` over the real disk, driven by messages.
 */
import { toAppError } from "../../base/error.ts";
import { realFileSystem } from "../../base/file-system.ts";
import { freeBytes } from "../../base/free-bytes.ts";
import { MemoryGuard } from "../../base/memory-guard.ts";
import type { WorkerAnswer } from "../../base/ordered-worker.ts";
import { RestoreLaneCore } from "./restore-lane.ts";
import type { LaneAsk } from "./restore-lanes.ts";

declare const self: Worker;

let core: RestoreLaneCore | undefined;

const memory = new MemoryGuard();

self.addEventListener("message", (event: MessageEvent<LaneAsk>) => {
  try {
    self.postMessage({ answer: handle(event.data) } satisfies WorkerAnswer, []);
  } catch (error) {
    self.postMessage({ error: toAppError(error).toJSON() } satisfies WorkerAnswer, []);
  }
  memory.check();
});

function handle(ask: LaneAsk): unknown {
  switch (ask.call) {
    case "open":
      core = new RestoreLaneCore(realFileSystem, ask.settings);
      return null;
    case "run":
      try {
        return mustGetCore().run(ask.window, ask.job, ask.stored);
      } finally {
        freeBytes(ask.stored);
      }
    case "sync":
      mustGetCore().sync();
      return null;
    case "publish":
      return mustGetCore().publish(ask.window, ask.isStatWanted);
    case "abandon":
      mustGetCore().abandon();
      return null;
  }
}

function mustGetCore(): RestoreLaneCore {
  if (core === undefined) throw new Error("A restore worker was asked before it was opened.");
  return core;
}
