/**
 * A site that fails on purpose, around any other site: what networks, object stores and disks do to
 * a backup, on demand for one call or at random from a seed. Everything that it did is recorded, so
 * that a failing test can tell its story. Calls that arrive while nothing is injected pass unchanged.
 */
import assert from "node:assert/strict";
import type { Clock, Random } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import type { RequestKind } from "./memory-site.ts";
import { throwIfCancelled } from "./object-key.ts";
import { aroundCopies } from "./site.ts";
import type { CopyCall, CopyOutcome, DeleteCall, ObjectHead, ObjectRow, PutCall } from "./site.ts";
import type { Site, SiteCall, SiteCopying, SiteFinding, SiteLock } from "./site.ts";

/** One call, as the hook sees it. */
export type FaultCall = {
  readonly kind: RequestKind;
  /** The key; the first one of a removal, the prefix of a listing. */
  readonly key: string;
  /** Counts all calls of this site from 0: a crash-point test walks through these. */
  readonly index: number;
};

/**
 * What can go wrong with one call. `error` replaces the AppError that is thrown, e.g. by a crash.
 * - `error-before`: the call has no effect and fails.
 * - `error-after`: it has its effect and fails (a lost acknowledgement).
 * - `late`: a put or delete fails with a timeout and has its effect `calls` calls later.
 * - `duplicate`: the request arrives twice; the second answer counts.
 * - `lost`: a put is acknowledged and not kept.
 * - `hidden`: a put succeeds, and the key seems absent for the next `calls` gets and heads.
 * - `stale`: a listing leaves out the objects put within the last `calls` calls.
 * - `cut`: a listing ends after half of its rows, and nothing says so.
 * - `full`: this put and those within the next `calls` calls fail for want of space.
 * - `expired`: this and the next `calls` calls fail since credentials have ended; new ones are fetched.
 * - `truncated`: a get returns only the first half of its bytes.
 * - `flipped`: a get returns bytes with one bit flipped.
 * - `storm`: this and the next `calls` calls fail with 503.
 * - `slow`: the call waits `delayMs` first.
 */
export type Fault =
  | { readonly fault: "error-before" | "error-after"; readonly error?: Error }
  | { readonly fault: LastingFault; readonly calls: number }
  | { readonly fault: "slow"; readonly delayMs: number }
  | { readonly fault: "duplicate" | "lost" | "truncated" | "flipped" | "cut" };

type LastingFault = "late" | "hidden" | "stale" | "storm" | "full" | "expired";

/** The name of a fault. */
export type FaultName = Fault["fault"];

const ANY_CALL = ["error-before", "error-after", "storm", "slow", "expired"] as const;

/** Which faults make sense for which calls; others are not drawn, and asking for them is a bug. */
const APPLICABLE: Readonly<Record<RequestKind, readonly FaultName[]>> = {
  get: [...ANY_CALL, "duplicate", "truncated", "flipped"],
  head: [...ANY_CALL, "duplicate"],
  put: [...ANY_CALL, "duplicate", "late", "lost", "hidden", "full"],
  delete: [...ANY_CALL, "duplicate", "late"],
  list: [...ANY_CALL, "stale", "cut"],
};

/** What drives the faults. The hook decides first; where it returns nothing, chance may. */
export type FaultySiteOptions = {
  readonly random: Random;
  readonly clock: Clock;
  readonly fault?: (call: FaultCall) => Fault | undefined;
  /** Probability of each fault for each call to which it can happen; none by default. */
  readonly rates?: Readonly<Partial<Record<FaultName, number>>>;
  /** The longest that drawn faults with `calls` last. */
  readonly callsMax?: number;
  /** The longest drawn delay. */
  readonly delayMsMax?: number;
};

/** One fault that happened. */
export type InjectedFault = FaultCall & { readonly fault: FaultName };

type Pending = {
  readonly dueIndex: number;
  readonly key: string;
  readonly land: () => Promise<unknown>;
};

const CALLS_MAX = 8;
const DELAY_MS_MAX = 5_000;

/**
 * Wraps a site and lets it fail.
 *
 * @example
 * const site = new FaultySite(new MemorySite(), { random, clock, rates: { "error-after": 0.05 } });
 */
export class FaultySite implements Site {
  readonly name: string;
  readonly location: string;
  readonly lock?: SiteLock;
  readonly weakness?: string;
  readonly copying?: SiteCopying;
  /** What was done, in order. */
  readonly injected: InjectedFault[] = [];
  readonly #site: Site;
  readonly #options: FaultySiteOptions;
  #pending: Pending[] = [];
  /** Keys that seem absent, with the number of looks that are still deceived. */
  readonly #hidden = new Map<string, number>();
  /** When each key was put, for listings that lag behind. */
  readonly #putAt = new Map<string, number>();
  #callCount = 0;
  #stormEnd = 0;
  #expiryEnd = 0;
  #fullEnd = 0;
  #isCalm = false;

  constructor(site: Site, options: FaultySiteOptions) {
    this.name = site.name;
    this.location = site.location;
    this.#site = site;
    this.#options = options;
    if (site.lock !== undefined) this.lock = site.lock;
    if (site.weakness !== undefined) this.weakness = site.weakness;
    const { copying } = aroundCopies(
      site,
      async (key, call, copy) => await this.#copy(key, call ?? {}, copy),
    );
    if (copying !== undefined) this.copying = copying;
  }

  /** Calls so far; the next one has this index. */
  get callCount(): number {
    return this.#callCount;
  }

  /** Requests that failed and have not landed yet. */
  get pendingCount(): number {
    return this.#pending.length;
  }

  /** Lets all that is under way land, and ends all deceptions; later calls fail as before. */
  async settle(): Promise<void> {
    this.#hidden.clear();
    this.#putAt.clear();
    this.#endSpells();
    await this.#land(Number.POSITIVE_INFINITY);
  }

  /** Ends (or begins again) all faults, e.g. before a test looks at the outcome. */
  setCalm(isCalm: boolean): void {
    this.#isCalm = isCalm;
    if (isCalm) this.#hidden.clear();
    if (isCalm) this.#endSpells();
  }

  async get(
    key: string,
    options: SiteCall & { readonly offset?: number; readonly length?: number } = {},
  ): Promise<Uint8Array | undefined> {
    return await this.#perform("get", key, options, async (fault) => {
      const bytes = await this.#site.get(key, options);
      if (this.#isHidden(key) || bytes === undefined) return undefined;
      if (fault?.fault === "truncated") return bytes.subarray(0, bytes.length >>> 1);
      if (fault?.fault === "flipped") return this.#flip(bytes);
      return bytes;
    });
  }

  async put(key: string, bytes: Uint8Array, options: PutCall = {}): Promise<"created" | "exists"> {
    const index = this.#callCount;
    return await this.#perform("put", key, options, async (fault) => {
      // The caller may use his buffer again as soon as the call has failed.
      if (fault?.fault === "late") {
        const copy = bytes.slice();
        const { signal: _, ...known } = options;
        this.#defer(key, fault.calls, async () => await this.#site.put(key, copy, known));
        throw this.#timeout(key);
      }
      if (fault?.fault === "lost") return "created";
      const outcome = await this.#site.put(key, bytes, options);
      if (outcome === "created") this.#putAt.set(key, index);
      if (fault?.fault === "hidden") this.#hidden.set(key, fault.calls);
      return outcome;
    });
  }

  async head(key: string, options: SiteCall = {}): Promise<ObjectHead | undefined> {
    return await this.#perform("head", key, options, async () => {
      const head = await this.#site.head(key, options);
      return this.#isHidden(key) ? undefined : head;
    });
  }

  async delete(keys: readonly string[], options: DeleteCall = {}): Promise<void> {
    const [key = ""] = keys;
    await this.#perform("delete", key, options, async (fault) => {
      if (fault?.fault === "late") {
        const copy = [...keys];
        const { signal: _, ...rest } = options;
        this.#defer(key, fault.calls, async () => await this.#site.delete(copy, rest));
        throw this.#timeout(key);
      }
      await this.#site.delete(keys, options);
    });
  }

  /** `error-after` breaks a listing off after its first row. */
  async *list(
    prefix: string,
    options: SiteCall & { readonly after?: string } = {},
  ): AsyncIterable<ObjectRow> {
    const { call, fault } = await this.#begin("list", prefix, options);
    if (fault?.fault === "error-before") throw this.#failure(fault, call);
    const since = fault?.fault === "stale" ? call.index - fault.calls : Number.POSITIVE_INFINITY;
    const rows = this.#site.list(prefix, options);
    for await (const row of fault?.fault === "cut" ? firstHalf(rows) : rows) {
      if ((this.#putAt.get(row.key) ?? -1) >= since) continue;
      yield row;
      if (fault?.fault === "error-after") break;
    }
    if (fault?.fault === "error-after") throw this.#failure(fault, call);
  }

  async inspect(options: SiteCall = {}): Promise<readonly SiteFinding[]> {
    return (await this.#site.inspect?.(options)) ?? [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#site[Symbol.asyncDispose]();
  }

  /** To a store a copy is a put without a body, and the same happens to it. */
  async #copy(
    key: string,
    options: CopyCall,
    copy: (call?: CopyCall) => Promise<CopyOutcome>,
  ): Promise<CopyOutcome> {
    const index = this.#callCount;
    return await this.#perform("put", key, options, async (fault) => {
      if (fault?.fault === "late") {
        const { signal: _, ...rest } = options;
        this.#defer(key, fault.calls, async () => await copy(rest));
        throw this.#timeout(key);
      }
      if (fault?.fault === "lost") return "created";
      const outcome = await copy();
      if (outcome === "created") this.#putAt.set(key, index);
      if (fault?.fault === "hidden") this.#hidden.set(key, fault.calls);
      return outcome;
    });
  }

  /** What all calls but listings have in common. */
  async #perform<T>(
    kind: RequestKind,
    key: string,
    options: SiteCall,
    work: (fault: Fault | undefined) => Promise<T>,
  ): Promise<T> {
    const { call, fault } = await this.#begin(kind, key, options);
    if (fault?.fault === "error-before") throw this.#failure(fault, call);
    const first = await work(fault);
    if (fault?.fault === "error-after") throw this.#failure(fault, call);
    return fault?.fault === "duplicate" ? await work(fault) : first;
  }

  async #begin(
    kind: RequestKind,
    key: string,
    options: SiteCall,
  ): Promise<{ readonly call: FaultCall; readonly fault: Fault | undefined }> {
    const call = { kind, key, index: this.#callCount };
    this.#callCount += 1;
    await this.#land(call.index);
    const fault = this.#isCalm ? undefined : (this.#options.fault?.(call) ?? this.#draw(call));
    if (fault !== undefined) {
      assert(APPLICABLE[kind].includes(fault.fault), `${fault.fault} cannot happen to a ${kind}`);
      this.injected.push({ ...call, fault: fault.fault });
    }
    if (fault?.fault === "storm") this.#stormEnd = call.index + fault.calls + 1;
    if (call.index < this.#stormEnd) throw this.#overload(call);
    if (fault?.fault === "expired") this.#expiryEnd = call.index + fault.calls + 1;
    if (call.index < this.#expiryEnd) throw this.#expiry(call);
    if (fault?.fault === "full") this.#fullEnd = call.index + fault.calls + 1;
    if (kind === "put" && call.index < this.#fullEnd) throw this.#noSpace(call);
    if (fault?.fault === "slow") await this.#options.clock.sleep(fault.delayMs);
    throwIfCancelled(options.signal);
    return { call, fault };
  }

  #draw({ kind }: FaultCall): Fault | undefined {
    const { random, rates = {}, callsMax = CALLS_MAX, delayMsMax = DELAY_MS_MAX } = this.#options;
    for (const fault of APPLICABLE[kind]) {
      const rate = rates[fault] ?? 0;
      if (rate === 0 || random.fraction() >= rate) continue;
      switch (fault) {
        case "late":
        case "hidden":
        case "stale":
        case "storm":
        case "full":
        case "expired":
          return { fault, calls: 1 + Math.floor(random.fraction() * callsMax) };
        case "slow":
          return { fault, delayMs: Math.ceil(random.fraction() * delayMsMax) };
        default:
          return { fault };
      }
    }
    return undefined;
  }

  #defer(key: string, calls: number, land: () => Promise<unknown>): void {
    this.#pending.push({ dueIndex: this.#callCount - 1 + calls, key, land });
  }

  async #land(index: number): Promise<void> {
    const due = this.#pending.filter(({ dueIndex }) => dueIndex <= index);
    this.#pending = this.#pending.filter(({ dueIndex }) => dueIndex > index);
    for (const { land } of due) {
      try {
        await land();
      } catch (thrown) {
        // Nobody waits for the answer of a request that was given up.
        if (!(thrown instanceof AppError)) throw thrown;
      }
    }
  }

  #isHidden(key: string): boolean {
    const left = this.#hidden.get(key);
    if (left === undefined) return false;
    if (left <= 1) this.#hidden.delete(key);
    else this.#hidden.set(key, left - 1);
    return true;
  }

  #flip(bytes: Uint8Array): Uint8Array {
    if (bytes.length === 0) return bytes;
    const copy = bytes.slice();
    const bit = Math.floor(this.#options.random.fraction() * copy.length * 8);
    copy[bit >>> 3] = (copy[bit >>> 3] ?? 0) ^ (1 << (bit & 7));
    return copy;
  }

  #failure(fault: { readonly error?: Error }, call: FaultCall): Error {
    return fault.error ?? this.#lostConnection(call);
  }

  #lostConnection({ kind, key }: FaultCall): AppError {
    return new AppError("unavailable", `${this.location} broke the connection in a ${kind}.`, {
      context: { site: this.name, key },
    });
  }

  #overload({ key }: FaultCall): AppError {
    return new AppError("unavailable", `${this.location} is overloaded: SlowDown 503`, {
      context: { site: this.name, key, status: 503 },
    });
  }

  #expiry({ key }: FaultCall): AppError {
    return new AppError(
      "permission",
      `${this.location} says ExpiredToken; new ones were fetched.`,
      {
        retryable: true,
        context: { site: this.name, key, status: 403 },
      },
    );
  }

  #noSpace({ key }: FaultCall): AppError {
    return new AppError("no-space", `${this.location} has no space left.`, {
      context: { site: this.name, key, status: 507 },
    });
  }

  #endSpells(): void {
    this.#stormEnd = 0;
    this.#expiryEnd = 0;
    this.#fullEnd = 0;
  }

  #timeout(key: string): AppError {
    return new AppError("timeout", `${this.location} did not answer in time.`, {
      context: { site: this.name, key },
    });
  }
}

async function* firstHalf(rows: AsyncIterable<ObjectRow>): AsyncIterable<ObjectRow> {
  const all: ObjectRow[] = [];
  for await (const row of rows) all.push(row);
  yield* all.slice(0, all.length >>> 1);
}
