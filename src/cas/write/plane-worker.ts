/**
 * Entry point of a backup worker: one `DataPlaneCore` over the real disk, driven by messages.
 */
import { toAppError } from "../../base/error.ts";
import { realFileSystem } from "../../base/file-system.ts";
import { realRandom } from "../../base/random.ts";
import { DataPlaneCore } from "./data-plane.ts";
import { SALT_SIZE_BYTES } from "../format/pack.ts";
import type { SealedPack } from "../format/pack.ts";
import type { PlaneAnswer, PlaneAsk, SentPack } from "./plane.ts";

declare const self: Worker;

let core: DataPlaneCore | undefined;

self.addEventListener("message", (event: MessageEvent<PlaneAsk>) => {
  try {
    const { answer, transfer } = handle(event.data);
    self.postMessage({ answer } satisfies PlaneAnswer, transfer);
  } catch (error) {
    self.postMessage({ error: toAppError(error).toJSON() } satisfies PlaneAnswer, []);
  }
});

type Handled = { readonly answer: unknown; readonly transfer: ArrayBuffer[] };

function handle(ask: PlaneAsk): Handled {
  switch (ask.call) {
    case "open":
      core = new DataPlaneCore(
        realFileSystem,
        () => realRandom.bytes(SALT_SIZE_BYTES),
        ask.settings,
      );
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
      mustGetCore().recycle(ask.buffer);
      return { answer: null, transfer: [] };
    case "reset":
      mustGetCore().reset();
      return { answer: null, transfer: [] };
  }
}

function send(packs: readonly SealedPack[]): Handled {
  const answer = packs.map(({ id, kind, bytes, directoryBytes }): SentPack => ({
    id,
    kind,
    bytes,
    directoryBytes,
  }));
  return { answer, transfer: answer.map((pack) => pack.bytes.buffer) };
}

function mustGetCore(): DataPlaneCore {
  if (core === undefined) throw new Error("A backup worker was asked before it was opened.");
  return core;
}
