/**
 * Leases: one holder at a time, which is refused once its time is over, and whose work has ended
 * before the next one begins.
 */
import { expect, test } from "bun:test";
import { LeaseHolder } from "../../src/cluster/lease.ts";
import type { LeaseRequest } from "../../src/cluster/protocol.ts";
import { VirtualClock } from "../simulation/virtual-clock.ts";

const LOST = { context: { reason: "lease-lost" } };
const HELD = { kind: "conflict", context: { reason: "lease-held" } };

test("while one coordinator holds the lease, another one is refused with the operation's id", async () => {
  const { holder } = open();
  await holder.take(request("1"));
  expect(holder.take(request("2", { coordinator: "other" }))).rejects.toMatchObject({
    ...HELD,
    message: expect.stringContaining(request("1").operation),
  });
});

test("asking again for the same lease gives it again and prolongs it", async () => {
  const { holder, clock } = open();
  await holder.take(request("1"));
  const { signal } = holder.use(id("1"));
  await clock.pass(50_000);
  await holder.take(request("1"));
  await clock.pass(50_000);
  expect([signal.aborted, holder.current?.lease]).toEqual([false, id("1")]);
});

test("a lease ends when it is not renewed, and lives on while it is", async () => {
  const { holder, clock } = open();
  await holder.take(request("1"));
  const { signal } = holder.use(id("1"));
  for (let count = 0; count < 10; count += 1) {
    await clock.pass(45_000);
    holder.renew(id("1"));
  }
  expect(signal.aborted).toBe(false);
  await clock.pass(62_000);
  expect(signal.aborted).toBe(true);
  expect(holder.current).toBeUndefined();
  expect(() => holder.renew(id("1"))).toThrow("not in force");
  expect(() => holder.use(id("1"))).toThrow("not in force");
});

test.each([60_100, 60_999, 61_001, 90_000])(
  "a lease outlives a standstill of %d ms, if it is renewed in the next moment",
  async (stallMs) => {
    const { holder, clock } = open();
    await holder.take(request("1"));
    const { signal } = holder.use(id("1"));
    for (let count = 0; count < 3; count += 1) {
      // The renewal lies in a socket's buffer: the watch wakes up before it.
      clock.stall(stallMs);
      await clock.step();
      expect(signal.aborted).toBe(false);
      expect(holder.take(request("2", { coordinator: "other" }))).rejects.toMatchObject(HELD);
      holder.use(id("1"));
      holder.renew(id("1"));
    }
    clock.stall(stallMs);
    await clock.pass(16_000);
    expect(signal.aborted).toBe(true);
    expect(() => holder.renew(id("1"))).toThrow("not in force");
  },
);

test("a lease that nobody renews ends, though the process stands still again and again", async () => {
  const { holder, clock } = open();
  await holder.take(request("1"));
  const { signal } = holder.use(id("1"));
  for (let count = 0; count < 2; count += 1) {
    clock.stall(61_001);
    await clock.step();
  }
  expect(signal.aborted).toBe(true);
});

test("who holds an old id is refused, though the node is leased to its successor", async () => {
  const { holder } = open();
  await holder.take(request("1"));
  await holder.release(id("1"));
  await holder.take(request("2", { coordinator: "other" }));
  expect(() => holder.use(id("1"))).toThrow("not in force");
  await holder.release(id("1"));
  expect(holder.current?.lease).toBe(id("2"));
});

test("a request for a lease that comes after its release takes nothing", async () => {
  const { holder } = open();
  await holder.take(request("1"));
  await holder.release(id("1"));
  expect(holder.take(request("1"))).rejects.toMatchObject(LOST);
  await holder.release(id("2"));
  expect(holder.take(request("2"))).rejects.toMatchObject(LOST);
  expect(holder.current).toBeUndefined();
});

test("what a coordinator led before gives way to what it leads now", async () => {
  const { holder } = open();
  await holder.take(request("1"));
  const { signal } = holder.use(id("1"));
  await holder.take(request("2"));
  expect(signal.aborted).toBe(true);
  expect(holder.current?.lease).toBe(id("2"));
});

test("the next lease is given when everything under the last one has ended, latest first", async () => {
  const { holder, clock } = open();
  await holder.take(request("1"));
  const ended: string[] = [];
  for (const name of ["first", "second"]) {
    holder.use(id("1")).onEnd(async () => {
      await clock.sleep(1000);
      ended.push(name);
    });
  }
  await clock.run(
    Promise.all([
      holder.release(id("1")).then(() => ended.push("released")),
      holder.take(request("2", { coordinator: "other" })).then(() => ended.push("taken")),
    ]),
  );
  expect(ended.slice(0, 2)).toEqual(["second", "first"]);
  expect(ended.slice(2).toSorted()).toEqual(["released", "taken"]);
});

test("of many that wait for the same end one gets the lease", async () => {
  const { holder, clock } = open();
  await holder.take(request("0"));
  holder.use(id("0")).onEnd(() => clock.sleep(1000));
  const releasing = holder.release(id("0"));
  const takers = ["1", "2", "3"].map((name) =>
    holder.take(request(name, { coordinator: name })).then(
      () => "taken",
      () => "refused",
    ),
  );
  await clock.run(releasing);
  const outcomes = await clock.run(Promise.all(takers));
  expect(outcomes.toSorted()).toEqual(["refused", "refused", "taken"]);
});

test("one that asks twice while it waits gets the lease twice", async () => {
  const { holder, clock } = open();
  await holder.take(request("0"));
  holder.use(id("0")).onEnd(() => clock.sleep(1000));
  void holder.release(id("0"));
  await clock.run(Promise.all([holder.take(request("1")), holder.take(request("1"))]));
  expect(holder.current?.lease).toBe(id("1"));
});

test("a clean-up that fails does not hold the lease for ever", async () => {
  const { holder } = open();
  await holder.take(request("1"));
  holder.use(id("1")).onEnd(() => Promise.reject(new Error("broken")));
  await holder.release(id("1"));
  await holder.take(request("2", { coordinator: "other" }));
  expect(holder.current?.lease).toBe(id("2"));
});

test("a node that shuts down gives no lease any more", async () => {
  const { holder } = open();
  await holder.take(request("1"));
  const { signal } = holder.use(id("1"));
  await holder.close();
  expect(signal.aborted).toBe(true);
  expect(holder.take(request("2"))).rejects.toMatchObject({ kind: "unavailable" });
});

function open() {
  const clock = new VirtualClock();
  return { clock, holder: new LeaseHolder(clock) };
}

function request(name: string, change: Partial<LeaseRequest> = {}): LeaseRequest {
  return {
    operation: id(`9${name}`),
    lease: id(name),
    kind: "backup",
    site: id("7"),
    mirrors: [],
    coordinator: "one",
    ttlMs: 60_000,
    ...change,
  };
}

function id(name: string): string {
  return name.padStart(32, "0");
}
