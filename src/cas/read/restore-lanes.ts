/**
 * The threads of a restore behind one interface. Each lane is a worker with a `RestoreLaneCore` over
 * the real disk; questions to one lane are answered in their order. The stored bytes of a job are
 * handed over, not copied. Workers are started when they are first needed: what is small is done by
 * whoever asks.
 */
import assert from "node:assert/strict";
import { AppError } from "../../base/error.ts";
import { OrderedWorker } from "../../base/ordered-worker.ts";
import type { LaneOutcome, LaneSettings, Published } from "./restore-lane.ts";
import type { RestoreJob } from "./restore-job.ts";

/** One thread of a restore; see `RestoreLaneCore`. */
export interface RestoreLane {
  /** The bytes are the lane's from then on. */
  run(window: number, job: RestoreJob, stored: Uint8Array): Promise<LaneOutcome>;
  sync(): Promise<void>;
  publish(window: number, isStatWanted: boolean): Promise<Published>;
  abandon(): Promise<void>;
}

/** Some threads; disposing of them ends them. */
export interface RestoreLanes extends Disposable {
  readonly lanes: readonly RestoreLane[];
}

/** Makes the lanes of one restore. */
export type OpenLanes = (settings: LaneSettings) => RestoreLanes;

/** Unless said otherwise; the thread that plans has little to do beside them. */
const LANE_COUNT = 2;

/**
 * Lanes in Bun Workers, which open the real file system themselves.
 *
 * @example
 * await runVolumeRestore({ ...options, openLanes: openWorkerLanes });
 */
export function openWorkerLanes(settings: LaneSettings): RestoreLanes {
  const lanes = Array.from({ length: LANE_COUNT }, () => new WorkerLane(settings));
  return {
    lanes,
    [Symbol.dispose]() {
      for (const lane of lanes) lane.close();
    },
  };
}

/** What a worker is asked, and its answer. */
export type LaneCalls = {
  readonly open: { readonly ask: { readonly settings: LaneSettings }; readonly answer: null };
  readonly run: {
    readonly ask: {
      readonly window: number;
      readonly job: RestoreJob;
      readonly stored: Uint8Array;
    };
    readonly answer: LaneOutcome;
  };
  readonly sync: { readonly ask: object; readonly answer: null };
  readonly publish: {
    readonly ask: { readonly window: number; readonly isStatWanted: boolean };
    readonly answer: Published;
  };
  readonly abandon: { readonly ask: object; readonly answer: null };
};

/** One message to a worker. */
export type LaneAsk = {
  [Call in keyof LaneCalls]: { readonly call: Call } & LaneCalls[Call]["ask"];
}[keyof LaneCalls];

/** One worker, started when it is first needed. */
class WorkerLane implements RestoreLane {
  readonly #settings: LaneSettings;
  #worker: OrderedWorker | undefined;
  #isClosed = false;

  constructor(settings: LaneSettings) {
    this.#settings = settings;
  }

  async run(window: number, job: RestoreJob, stored: Uint8Array): Promise<LaneOutcome> {
    const isOwnBuffer = stored.length === stored.buffer.byteLength;
    const bytes = isOwnBuffer ? stored : stored.slice();
    assert(bytes.buffer instanceof ArrayBuffer);
    return await this.#call({ call: "run", window, job, stored: bytes }, [bytes.buffer]);
  }

  async sync(): Promise<void> {
    if (this.#worker !== undefined) await this.#call({ call: "sync" });
  }

  async publish(window: number, isStatWanted: boolean): Promise<Published> {
    if (this.#worker === undefined) return NOTHING;
    return await this.#call({ call: "publish", window, isStatWanted });
  }

  async abandon(): Promise<void> {
    if (this.#worker !== undefined) await this.#call({ call: "abandon" });
  }

  close(): void {
    this.#isClosed = true;
    this.#worker?.close();
  }

  async #call<Ask extends LaneAsk>(
    ask: Ask,
    transfer: ArrayBuffer[] = [],
  ): Promise<LaneCalls[Ask["call"]]["answer"]> {
    if (this.#isClosed) throw new AppError("cancelled", "The restore worker was closed.");
    this.#worker ??= this.#start();
    return (await this.#worker.call(ask, transfer)) as LaneCalls[Ask["call"]]["answer"];
  }

  #start(): OrderedWorker {
    const worker = new OrderedWorker(
      new URL("restore-worker.ts", import.meta.url),
      "restore worker",
    );
    worker.tell({ call: "open", settings: this.#settings } satisfies LaneAsk);
    return worker;
  }
}

const NOTHING: Published = {
  numbers: new Float64Array(0),
  stats: undefined,
  ownersNotSet: 0,
  xattrsNotSet: 0,
};
