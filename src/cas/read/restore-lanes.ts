/**
 * The threads of a restore behind one interface. Each lane is a worker with a `RestoreLaneCore` over
 * the real disk; questions to one lane are answered in their order. The stored bytes of a job are
 * handed over, not copied. Workers are started when they are first needed: what is small is done by
 * whoever asks.
 */
import assert from "node:assert/strict";
import { AppError } from "../../base/error.ts";
import type { AppErrorJson } from "../../base/error.ts";
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

/** One message from a worker: the answer to the oldest question that has none. */
export type LaneAnswer = { readonly answer: unknown } | { readonly error: AppErrorJson };

/** One worker. It answers in order, so that questions need no numbers. */
class WorkerLane implements RestoreLane {
  readonly #settings: LaneSettings;
  #worker: Worker | undefined;
  readonly #waiting: PromiseWithResolvers<unknown>[] = [];
  #failure: AppError | undefined;

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
    this.#fail(new AppError("cancelled", "The restore worker was closed."));
    this.#worker?.terminate();
  }

  async #call<Ask extends LaneAsk>(
    ask: Ask,
    transfer: ArrayBuffer[] = [],
  ): Promise<LaneCalls[Ask["call"]]["answer"]> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#worker ??= this.#start();
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.push(waiting);
    this.#worker.postMessage(ask, transfer);
    return (await waiting.promise) as LaneCalls[Ask["call"]]["answer"];
  }

  #start(): Worker {
    // `smol`: what a worker allocates beside its buffers is small and short-lived.
    const worker = new Worker(new URL("restore-worker.ts", import.meta.url).href, { smol: true });
    worker.addEventListener("message", (event: MessageEvent<LaneAnswer>) =>
      this.#accept(event.data),
    );
    worker.addEventListener("error", (event) => {
      this.#fail(new AppError("internal", `A restore worker ended: ${event.message}.`));
    });
    const opened = Promise.withResolvers<unknown>();
    // Its failure shows in the calls that follow.
    opened.promise.catch(() => undefined);
    this.#waiting.push(opened);
    worker.postMessage({ call: "open", settings: this.#settings } satisfies LaneAsk, []);
    return worker;
  }

  #accept(message: LaneAnswer): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) return;
    if ("answer" in message) return waiting.resolve(message.answer);
    const { kind, message: text, ...options } = message.error;
    waiting.reject(new AppError(kind, text, options));
  }

  #fail(error: AppError): void {
    this.#failure ??= error;
    for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#failure);
  }
}

const NOTHING: Published = {
  numbers: new Float64Array(0),
  stats: undefined,
  ownersNotSet: 0,
  xattrsNotSet: 0,
};
