/**
 * Entry point of a backup worker: one `DataPlaneCore` over the real disk, driven by messages.
 */
import { toAppError } from "../../base/error.ts";
import { realFileSystem } from "../../base/file-system.ts";
import { MemoryGuard } from "../../base/memory-guard.ts";
import type { WorkerAnswer } from "../../base/ordered-worker.ts";
import { realRandom } from "../../base/random.ts";
import { SharedBuffers } from "../../base/shared-buffers.ts";
import type { ContentChecks } from "./content-check.ts";
import { DataPlaneCore } from "./data-plane.ts";
import { SALT_SIZE_BYTES } from "../format/pack.ts";
import type { SealedPack } from "../format/pack.ts";
import type { PlaneAsk, SentPack } from "./plane.ts";

declare const self: Worker;

type OpenAsk = Extract<PlaneAsk, { readonly call: "open" }>;

let core: DataPlaneCore | undefined;

const memory = new MemoryGuard();

/** Of packs. */
const buffers = new SharedBuffers();

/** Checks are loaded before the first question is answered; what fails there fails all of them. */
let opened: Promise<void> = Promise.resolve();

self.addEventListener("message", (event: MessageEvent<PlaneAsk>) => void respond(event.data));

async function respond(ask: PlaneAsk): Promise<void> {
  if (ask.call === "open") opened = open(ask);
  try {
    await opened;
    const { answer, transfer } = handle(ask);
    self.postMessage({ answer } satisfies WorkerAnswer, transfer);
  } catch (error) {
    self.postMessage({ error: toAppError(error).toJSON() } satisfies WorkerAnswer, []);
  }
  memory.check();
}

async function open({ settings, checksModule }: OpenAsk): Promise<void> {
  const checks = checksModule === undefined ? {} : await loadChecks(checksModule);
  const salt = (): Uint8Array => realRandom.bytes(SALT_SIZE_BYTES);
  core = new DataPlaneCore(realFileSystem, salt, { ...settings, checks, buffers });
}

async function loadChecks(module: string): Promise<ContentChecks> {
  const { contentChecks } = (await import(module)) as { readonly contentChecks: ContentChecks };
  return contentChecks;
}

type Handled = { readonly answer: unknown; readonly transfer: ArrayBuffer[] };

function handle(ask: PlaneAsk): Handled {
  switch (ask.call) {
    case "open":
      return { answer: null, transfer: [] };
    case "scan": {
      const answer = mustGetCore().scan(ask.slot, ask.tasks);
      return { answer, transfer: [answer.ids.buffer, answer.lengths.buffer] };
    }
    case "store":
      return send(mustGetCore().store(ask.slot, ask.keep));
    case "flush":
      return send(mustGetCore().flush());
    case "recycle":
      recycle(ask.buffer);
      return { answer: null, transfer: [] };
    case "reset":
      mustGetCore().reset(ask.sealing);
      return { answer: null, transfer: [] };
  }
}

function send(packs: readonly SealedPack[]): Handled {
  const answer = packs.map(({ id, kind, bytes, directoryBytes }): SentPack => ({
    id,
    kind,
    bytes: buffers.share(bytes) ?? bytes,
    directoryBytes,
  }));
  return { answer, transfer: [] };
}

function recycle(number: number): void {
  const buffer = buffers.get(number);
  if (buffer !== undefined) mustGetCore().recycle(buffer);
}

function mustGetCore(): DataPlaneCore {
  if (core === undefined) throw new Error("A backup worker was asked before it was opened.");
  return core;
}
