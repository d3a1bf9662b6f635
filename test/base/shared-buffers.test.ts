/** Buffers that cross to another thread once, and come back as numbers. */
import { expect, test } from "bun:test";
import { SharedBuffers, SharedViews } from "../../src/base/shared-buffers.ts";

/** What the other thread gets: the memory is shared, the rest copied. */
function cross<Message>(message: Message): Message {
  const { memory, ...rest } = message as { readonly memory?: SharedArrayBuffer };
  return { ...structuredClone(rest), ...(memory === undefined ? {} : { memory }) } as Message;
}

test("memory crosses once, its number from then on", () => {
  const owner = new SharedBuffers();
  const views = new SharedViews();
  const buffer = owner.make(8);
  buffer.set([1, 2, 3]);
  const first = owner.share(buffer.subarray(0, 3))!;
  expect(first.memory).toBe(buffer.buffer as SharedArrayBuffer);
  const seen = views.open(cross(first));
  expect([...seen]).toEqual([1, 2, 3]);

  const returned = owner.get(views.numberOf(seen)!)!;
  expect(returned.length).toBe(8);
  returned.set([4, 5]);
  const second = owner.share(returned.subarray(0, 2))!;
  expect(second.memory).toBeUndefined();
  expect([...views.open(cross(second))]).toEqual([4, 5]);
});

test("a forgotten buffer is let go by the other side too, and its number never comes again", () => {
  const owner = new SharedBuffers();
  const views = new SharedViews();
  const gone = owner.make(4);
  const seen = views.open(cross(owner.share(gone)!));
  const number = views.numberOf(seen)!;
  owner.forget(gone);
  expect(owner.get(number)).toBeUndefined();
  expect(owner.share(gone)).toBeUndefined();

  const other = owner.share(owner.make(4))!;
  expect(other.number).not.toBe(number);
  expect(other.forgotten).toEqual([number]);
  views.open(cross(other));
  expect(views.numberOf(seen)).toBeUndefined();
  expect(owner.share(owner.make(4))!.forgotten).toEqual([]);
});

test("a buffer that never crossed is forgotten without a word", () => {
  const owner = new SharedBuffers();
  owner.forget(owner.make(4));
  expect(owner.share(owner.make(4))!.forgotten).toEqual([]);
});

test("bytes of other memory are not shared", () => {
  expect(new SharedBuffers().share(new Uint8Array(4))).toBeUndefined();
  expect(new SharedViews().numberOf(new Uint8Array(4))).toBeUndefined();
});
