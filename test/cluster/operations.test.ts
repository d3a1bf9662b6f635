/**
 * The journal of operations: what was asked is known whatever happens to the process, watchers see
 * the end exactly once, and cancelling ends what runs.
 */
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import type { OperationContext, OperationEvent } from "../../src/cluster/operations.ts";
import { Operations } from "../../src/cluster/operations.ts";
import type { JsonValue } from "../../src/cluster/protocol.ts";
import { idle, never, VirtualClock } from "../simulation/virtual-clock.ts";
import { seededRandom } from "../sites/still-clock.ts";

test("an operation that ended well is remembered with its request and result", async () => {
  const { operations } = open();
  const { id } = operations.start("backup", { name: "n" }, async () => ({ files: 3 }));
  expect(await operations.wait(id)).toMatchObject({
    kind: "backup",
    state: "done",
    request: { name: "n" },
    result: { files: 3 },
    coordinator: "a",
  });
  expect(operations.running()).toEqual([]);
});

test("an operation that failed is remembered with its advice", async () => {
  const { operations } = open();
  const { id } = operations.start("verify", {}, () =>
    Promise.reject(new AppError("damaged", "bad", { guidance: "do this" })),
  );
  const record = await operations.wait(id);
  expect(record.state).toBe("failed");
  expect(record.error).toMatchObject({ kind: "damaged", message: "bad", guidance: "do this" });
});

test("what a dead process left running counts as failed after the restart, and says so", async () => {
  const { operations, database, clock } = open();
  const { id } = operations.start("backup", {}, () => never());
  await idle();
  expect(operations.get(id)?.state).toBe("running");
  const restarted = open(database, clock);
  expect(restarted.operations.get(id)).toMatchObject({ state: "failed" });
  expect(restarted.operations.get(id)?.error?.message).toContain("The server ended");
  expect((await restarted.operations.wait(id)).state).toBe("failed");
});

test("what had ended before a restart is as it was", async () => {
  const { operations, database, clock } = open();
  const { id } = operations.start("cleanup", {}, async () => ({ freed: 1 }));
  const before = await operations.wait(id);
  const { progress: _, ...kept } = before;
  expect(open(database, clock).operations.get(id)).toEqual(kept);
});

test("lists are newest first, also of operations that began in one moment", async () => {
  const { operations } = open();
  const ids: string[] = [];
  for (const kind of ["backup", "cleanup", "backup"] as const) {
    const { id } = operations.start(kind, {}, async () => ({}));
    ids.push(id);
  }
  // The first one ends last, which must not move it.
  for (const id of ids.toReversed()) await operations.wait(id);
  expect(operations.list().map(({ id }) => id)).toEqual(ids.toReversed());
  expect(operations.list({ kind: "backup" }).map(({ id }) => id)).toEqual([ids[2]!, ids[0]!]);
  expect(operations.list({ limit: 1 })).toHaveLength(1);
});

test("a watcher sees the state, then what happens, then the end, once", async () => {
  const { operations } = open();
  const gate = Promise.withResolvers<void>();
  let context: OperationContext | undefined;
  const { id } = operations.start("backup", {}, async (given) => {
    context = given;
    await gate.promise;
    return {};
  });
  const events: OperationEvent[] = [];
  const watching = (async () => {
    for await (const event of operations.watch(id)) events.push(event);
  })();
  await idle();
  context?.progress({ phase: "store", files: 1 });
  await idle();
  context?.say("hello");
  gate.resolve();
  await watching;
  expect(events.map(({ type }) => type)).toEqual(["progress", "progress", "message", "end"]);
  expect(events[1]).toMatchObject({ progress: { phase: "store", files: 1 } });
  expect(events.at(-1)).toMatchObject({ record: { state: "done" } });
});

test("a slow watcher gets the newest progress, not all of it", async () => {
  const { operations } = open();
  const { id } = operations.start("backup", {}, async (context) => {
    for (let files = 1; files <= 1000; files += 1) context.progress({ files });
    return {};
  });
  const seen: string[] = [];
  for await (const event of operations.watch(id)) {
    seen.push(event.type === "progress" ? `progress ${event.progress.files}` : event.type);
  }
  expect(seen).toEqual(["progress 0", "progress 1000", "end"]);
});

test("who watches an ended operation gets its end; who stops watching is let go", async () => {
  const { operations } = open();
  const ended = operations.start("backup", {}, async () => ({}));
  await operations.wait(ended.id);
  expect(await drain(operations, ended.id)).toEqual(["end"]);
  const endless = operations.start("backup", {}, () => never());
  const abort = new AbortController();
  const watching = drain(operations, endless.id, abort.signal);
  await idle();
  abort.abort();
  expect(await watching).toEqual(["progress"]);
  expect(drain(operations, "f".repeat(32))).rejects.toMatchObject({ kind: "not-found" });
});

test("cancelling ends an operation as cancelled, whatever it throws then", async () => {
  const { operations } = open();
  const { id } = operations.start("backup", {}, untilAborted);
  await idle();
  expect(operations.cancel(id, "by hand")).toBe(true);
  const record = await operations.wait(id);
  expect(record).toMatchObject({ state: "cancelled", error: { kind: "cancelled" } });
  expect(record.error?.message).toContain("by hand");
  expect(operations.cancel(id, "again")).toBe(false);
});

test("an operation that is cancelled before it began does not begin", async () => {
  const { operations } = open();
  let hasBegun = false;
  const { id } = operations.start("backup", {}, async () => {
    hasBegun = true;
    return {};
  });
  operations.cancel(id, "at once");
  expect((await operations.wait(id)).state).toBe("cancelled");
  expect(hasBegun).toBe(false);
});

test("a shutdown cancels what runs, waits for it, and takes nothing new", async () => {
  const { operations } = open();
  const { id } = operations.start("backup", {}, untilAborted);
  await idle();
  await operations.settle();
  expect(operations.get(id)).toMatchObject({ state: "cancelled" });
  expect(() => operations.start("backup", {}, async () => ({}))).toThrow(/shutting down/);
});

test("a journal that cannot be written does not take the operation down", async () => {
  const { operations, database } = open();
  const { id } = operations.start("backup", {}, async () => {
    database.run("DROP TABLE operation");
    return { files: 1 };
  });
  expect(await operations.wait(id)).toMatchObject({ state: "done", result: { files: 1 } });
});

function open(database = new Database(":memory:", { strict: true }), clock = new VirtualClock()) {
  const random = seededRandom(database.serialize().length);
  const operations = new Operations({ database, clock, random, coordinator: "a" });
  return { operations, database, clock };
}

async function untilAborted(context: OperationContext): Promise<JsonValue> {
  await new Promise((resolve) => {
    context.signal.addEventListener("abort", resolve, { once: true });
  });
  throw new Error("something else broke on the way");
}

async function drain(operations: Operations, id: string, signal?: AbortSignal): Promise<string[]> {
  const types: string[] = [];
  for await (const event of operations.watch(id, signal)) types.push(event.type);
  return types;
}
