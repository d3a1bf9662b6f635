/**
 * One or more data planes behind one interface: in this thread (the simulator, small jobs) or in
 * workers. Calls to one lane are answered in their order. Sealed packs are shared between threads;
 * only one that has outgrown its buffer is copied. Their directories cross as bytes.
 */
import assert from "node:assert/strict";
import type { FileSystem, Random } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { OrderedWorker } from "../../base/ordered-worker.ts";
import { SharedViews } from "../../base/shared-buffers.ts";
import type { SharedPart } from "../../base/shared-buffers.ts";
import type { BackupSettings } from "./backup-settings.ts";
import type { ChunkerSettings } from "../format/chunker.ts";
import type { CheckSource, ContentChecks } from "./content-check.ts";
import { DataPlaneCore } from "./data-plane.ts";
import type { DataPlaneSettings, FileTask, PlaneSealing, ScanResult } from "./data-plane.ts";
import { decodeDirectory, SALT_SIZE_BYTES } from "../format/pack.ts";
import type { SealedPack } from "../format/pack.ts";

/** Where reading, hashing and packing happens. A lane is one thread with its own open pack. */
export interface DataPlane extends AsyncDisposable {
  readonly laneCount: number;
  scan(lane: number, slot: number, tasks: readonly FileTask[]): Promise<ScanResult>;
  /** Packs the chunks whose byte in `keep` is 1, and frees the slot. */
  store(lane: number, slot: number, keep: Uint8Array<ArrayBuffer>): Promise<SealedPack[]>;
  /** Seals the open pack. */
  flush(lane: number): Promise<SealedPack[]>;
  /** Gives the memory of a pack of this plane back; its bytes are gone. */
  recycle(pack: SealedPack): void;
  /**
   * Forgets open files and open packs of an operation that failed, and how they were sealed; says how
   * packs are sealed from now on.
   */
  reset(sealing?: PlaneSealing): Promise<void>;
}

/** Opens as many planes as the settings say: `workers` threads, or this one for 0. */
export function openPlane(
  doors: { readonly files: FileSystem; readonly random: Random },
  chunker: ChunkerSettings,
  options: BackupSettings & { readonly contentChecks?: CheckSource },
): DataPlane {
  const { batchSizeBytes, packSizeBytes, frameSizeBytes, compressionLevel } = options;
  const plane = { chunker, batchSizeBytes, packSizeBytes, frameSizeBytes, compressionLevel };
  const { workers, contentChecks } = options;
  if (workers > 0) return openWorkerPlane(workers, plane, contentChecks?.module);
  const { checks = {} } = contentChecks ?? {};
  return openInlinePlane(doors, { ...plane, checks });
}

/** A plane in this thread, over any file system. */
export function openInlinePlane(
  doors: { readonly files: FileSystem; readonly random: Random },
  settings: DataPlaneSettings & { readonly checks?: ContentChecks },
): DataPlane {
  const core = new DataPlaneCore(doors.files, () => doors.random.bytes(SALT_SIZE_BYTES), settings);
  return {
    laneCount: 1,
    scan: async (_lane, slot, tasks) => core.scan(slot, tasks),
    store: async (_lane, slot, keep) => core.store(slot, keep),
    flush: async () => core.flush(),
    recycle: ({ bytes }) => core.recycle(new Uint8Array(bytes.buffer)),
    reset: async (sealing) => core.reset(sealing),
    [Symbol.asyncDispose]: async () => core.reset(),
  };
}

/**
 * Planes in Bun Workers, which open the real file system themselves. A worker is started when it is
 * first needed: a backup in which nothing changed needs none.
 */
export function openWorkerPlane(
  workerCount: number,
  settings: DataPlaneSettings,
  checksModule?: string,
): DataPlane {
  assert(workerCount >= 1);
  const lanes: (Lane | undefined)[] = Array.from({ length: workerCount }, () => undefined);
  let isClosed = false;
  let sealed: PlaneSealing | undefined;
  const started = (lane: number): Lane => {
    if (isClosed) throw new AppError("cancelled", "The backup workers were closed.");
    return (lanes[lane] ??= new Lane(settings, { checksModule, sealing: sealed }));
  };
  const owners = new WeakMap<SealedPack, Lane>();
  const open = (lane: Lane, sent: readonly SentPack[]): SealedPack[] => {
    const packs = sent.map((one) => lane.open(one));
    for (const pack of packs) owners.set(pack, lane);
    return packs;
  };
  return {
    laneCount: workerCount,
    scan: async (lane, slot, tasks) => await started(lane).call({ call: "scan", slot, tasks }),
    async store(lane, slot, keep) {
      return open(started(lane), await started(lane).call({ call: "store", slot, keep }));
    },
    async flush(lane) {
      const worker = lanes[lane];
      return worker === undefined ? [] : open(worker, await worker.call({ call: "flush" }));
    },
    recycle(pack) {
      owners.get(pack)?.recycle(pack);
      // Given back twice, a buffer would be filled by two packs.
      owners.delete(pack);
    },
    async reset(sealing) {
      sealed = sealing;
      for (const lane of lanes) await lane?.call(resetAsk(sealing));
    },
    async [Symbol.asyncDispose]() {
      isClosed = true;
      for (const lane of lanes) lane?.close();
    },
  };
}

/** A sealed pack as it crosses threads. */
export type SentPack = Pick<SealedPack, "id" | "kind" | "directoryBytes"> & {
  /** Bytes of their own where the pack lies in none of the worker's buffers. */
  readonly bytes: SharedPart | Uint8Array;
};

/** What a worker is asked, and its answer. */
export type PlaneCalls = {
  readonly open: {
    readonly ask: { readonly settings: DataPlaneSettings; readonly checksModule?: string };
    readonly answer: null;
  };
  readonly scan: {
    readonly ask: { readonly slot: number; readonly tasks: readonly FileTask[] };
    readonly answer: ScanResult;
  };
  readonly store: {
    readonly ask: { readonly slot: number; readonly keep: Uint8Array<ArrayBuffer> };
    readonly answer: SentPack[];
  };
  readonly flush: { readonly ask: object; readonly answer: SentPack[] };
  readonly recycle: { readonly ask: { readonly buffer: number }; readonly answer: null };
  readonly reset: { readonly ask: { readonly sealing?: PlaneSealing }; readonly answer: null };
};

/** One message to a worker. */
export type PlaneAsk = {
  [Call in keyof PlaneCalls]: { readonly call: Call } & PlaneCalls[Call]["ask"];
}[keyof PlaneCalls];

type LaneBeginning = {
  readonly checksModule: string | undefined;
  readonly sealing: PlaneSealing | undefined;
};

function resetAsk(sealing: PlaneSealing | undefined): Extract<PlaneAsk, { call: "reset" }> {
  return sealing === undefined ? { call: "reset" } : { call: "reset", sealing };
}

/** One worker. */
class Lane {
  readonly #worker = new OrderedWorker(
    new URL("plane-worker.ts", import.meta.url),
    "backup worker",
  );
  readonly #views = new SharedViews();

  constructor(settings: DataPlaneSettings, { checksModule, sealing }: LaneBeginning) {
    const module = checksModule === undefined ? {} : { checksModule };
    this.#worker.tell({ call: "open", settings, ...module } satisfies PlaneAsk);
    if (sealing !== undefined) this.#worker.tell(resetAsk(sealing));
  }

  async call<Ask extends PlaneAsk>(ask: Ask): Promise<PlaneCalls[Ask["call"]]["answer"]> {
    return (await this.#worker.call(ask)) as PlaneCalls[Ask["call"]]["answer"];
  }

  open({ bytes, ...pack }: SentPack): SealedPack {
    const directory = decodeDirectory(pack.directoryBytes, `pack ${pack.id}`);
    return {
      ...pack,
      directory,
      bytes: bytes instanceof Uint8Array ? bytes : this.#views.open(bytes),
    };
  }

  recycle({ bytes }: SealedPack): void {
    const buffer = this.#views.numberOf(bytes);
    if (buffer !== undefined) this.#worker.tell({ call: "recycle", buffer } satisfies PlaneAsk);
  }

  close(): void {
    this.#worker.close();
  }
}
