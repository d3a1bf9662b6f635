/**
 * After the barrier, when all nodes have stored: finds out where the chunks lie that other nodes have
 * claimed, and sends what nobody sent. A backup may be listed only when each chunk is in an
 * acknowledged pack, so that a chunk that cannot be read again ends it.
 */
import { AppError } from "../../base/error.ts";
import { toHex } from "../../base/hex.ts";
import { textFromPath } from "../../base/path.ts";
import type { BackupContext } from "./backup-context.ts";
import { SETTLE_PAUSE_MS, SETTLE_PAUSE_MS_MAX, SETTLE_WAIT_MS_MAX } from "./backup-settings.ts";
import type { ForeignChunk } from "./claims.ts";
import { PackBuilder } from "../format/pack-builder.ts";
import { SALT_SIZE_BYTES } from "../format/pack.ts";
import type { SealedPack } from "../format/pack.ts";
import type { UseTable } from "./use-table.ts";

const PAGE_CHUNK_COUNT = 1000;

/** Settles all chunks that others have claimed; what had to be sent is acknowledged afterwards. */
export async function settleForeignChunks(context: BackupContext, uses: UseTable): Promise<void> {
  const { clock } = context.doors;
  const deadlineMs = clock.monotonic() + SETTLE_WAIT_MS_MAX;
  for (let pauseMs = SETTLE_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, SETTLE_PAUSE_MS_MAX)) {
    const waiting = await settleOnce(context, uses);
    if (waiting === 0) return;
    if (clock.monotonic() >= deadlineMs) {
      throw new AppError("timeout", `${waiting} chunks of other nodes did not arrive.`, {
        guidance: "See what the other nodes report, and run the backup again.",
        context: { waiting },
      });
    }
    await clock.sleep(pauseMs, context.signal);
  }
}

/** One round of questions; the number of chunks that are still under way elsewhere. */
async function settleOnce(context: BackupContext, uses: UseTable): Promise<number> {
  const { foreign, claims, lookup, uploads } = context;
  const sender = new Resender(context);
  let waiting = 0;
  for (let after: Uint8Array = new Uint8Array(0); ;) {
    const chunks = foreign.list(after, PAGE_CHUNK_COUNT);
    if (chunks.length === 0) break;
    after = chunks.at(-1)!.id;
    const answers = await claims.resolve(chunks.map(({ id }) => id));
    for (const [index, chunk] of chunks.entries()) {
      const answer = answers[index] ?? "wait";
      if (answer === "wait") {
        waiting += 1;
        continue;
      }
      if (answer !== "yours") uses.addFrame(answer.pack, answer.frame, () => answer.frameCount);
      else if (!lookup.isUnderWay(chunk.id) && !lookup.use(chunk.id)) sender.send(chunk);
      foreign.remove(chunk.id);
      await uploads.room();
    }
  }
  sender.flush();
  await uploads.drain();
  return waiting;
}

/** Sends chunks again from where they were read. */
class Resender {
  readonly #context: BackupContext;
  #builder: PackBuilder | undefined;

  constructor(context: BackupContext) {
    this.#context = context;
  }

  send(chunk: ForeignChunk): void {
    const bytes = readChunk(this.#context, chunk);
    this.#builder ??= this.#openBuilder();
    this.#context.lookup.begin(chunk.id);
    this.#context.totals.newChunks += 1;
    this.#context.totals.newBytes += bytes.length;
    this.#push(this.#builder.add(chunk.id, bytes));
  }

  flush(): void {
    this.#push(this.#builder?.finish());
  }

  #push(pack: SealedPack | undefined): void {
    if (pack !== undefined) this.#context.uploads.push(pack);
  }

  #openBuilder(): PackBuilder {
    const { settings, doors } = this.#context;
    return new PackBuilder({
      kind: "data",
      packSizeBytes: settings.packSizeBytes,
      frameSizeBytes: settings.frameSizeBytes,
      compression: { level: settings.compressionLevel },
      salt: () => doors.random.bytes(SALT_SIZE_BYTES),
      sealing: this.#context.sealing,
    });
  }
}

function readChunk(context: BackupContext, chunk: ForeignChunk): Uint8Array {
  const { files } = context.doors;
  const bytes = new Uint8Array(chunk.length);
  let filled = 0;
  const handle = files.open(chunk.readPath, "r");
  try {
    while (filled < bytes.length) {
      const count = files.read(handle, bytes.subarray(filled), chunk.offset + filled);
      if (count === 0) break;
      filled += count;
    }
  } finally {
    files.close(handle);
  }
  context.totals.readBytes += filled;
  if (filled === bytes.length && context.sealer.isChunk(bytes, chunk.id)) return bytes;
  const path = textFromPath(chunk.readPath);
  throw new AppError("incomplete", `${path} changed, and another node did not send a part of it.`, {
    guidance: "Run the backup again.",
    retryable: true,
    context: { path, chunk: toHex(chunk.id), offset: chunk.offset },
  });
}
