/**
 * A client of etcd v3 over its JSON gateway, which every member serves on its client port: no gRPC,
 * nothing but `Outside.fetch`. Asks the endpoints in turn, the last good one first; what says
 * `retryable` is tried again in bounded rounds, so every write must be one that may come twice (see
 * `transact`). A prefix is read in pages at one revision: what comes is what etcd held at one moment.
 */
import type { z } from "zod";
import type { Clock, FileSystem, Outside, Random } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { retry } from "../../base/retry.ts";
import type { Secret } from "../../base/secret.ts";
import {
  describeOutage,
  describeRefusal,
  describeTransport,
  TOKEN_EXPIRED,
} from "./etcd-failure.ts";
import { answers, encodeBytes, encodeTransaction, endOfPrefix } from "./etcd-messages.ts";
import type { EtcdEntry, EtcdMember, EtcdStatus, EtcdTransaction } from "./etcd-messages.ts";
import { readEtcdTls } from "./etcd-tls.ts";
import type { EtcdTls, EtcdTlsFiles } from "./etcd-tls.ts";

/** How to reach an etcd: what `etcdConnectionSchema` gives. */
export type EtcdAccess = {
  /** Origins, such as `https://etcd1:2379`; at least one. */
  readonly endpoints: readonly string[];
  /** Read at each `openEtcd`, so that renewed certificates are taken. */
  readonly tls?: EtcdTlsFiles | undefined;
  readonly user?: { readonly name: string; readonly password: Secret } | undefined;
  /** Of one request to one endpoint. */
  readonly requestTimeoutMs?: number | undefined;
};

/** The doors that a client needs. */
export type EtcdDoors = {
  readonly clock: Clock;
  readonly random: Random;
  readonly files: FileSystem;
  readonly outside: Outside;
};

/** Keys at one revision. */
export type EtcdRange = { readonly revision: bigint; readonly entries: readonly EtcdEntry[] };

/** Operations in one transaction, by etcd's default (`--max-txn-ops`). */
export const TRANSACTION_OPERATION_COUNT_MAX = 128;

/** Bytes of one request: etcd's default of 1.5 MiB, less what its own encoding may add. */
export const TRANSACTION_SIZE_BYTES_MAX = 1_400_000;

const REQUEST_TIMEOUT_MS = 10_000;
const ROUND_COUNT = 3;
const ALIVE_TIMEOUT_MS = 2_000;
/** Keys of the first page; later ones are sized by what came. */
const PAGE_COUNT = 100;
const PAGE_COUNT_MAX = 4_000;
const PAGE_SIZE_BYTES_WANTED = 2 * 1024 * 1024;
/** Reads of a prefix that begin again because of a compaction. */
const READ_ATTEMPTS = 3;
const KEY_COUNT_MAX = 1_000_000;

/** A client for an etcd; connects when it is first asked. */
export function openEtcd(access: EtcdAccess, doors: EtcdDoors): EtcdClient {
  return new EtcdClient(access, doors);
}

/** One etcd cluster, as one user. Made by `openEtcd`. */
export class EtcdClient {
  readonly #access: EtcdAccess;
  readonly #doors: EtcdDoors;
  readonly #tls: EtcdTls | undefined;
  #preferred = 0;
  #token: string | undefined;

  constructor(access: EtcdAccess, doors: EtcdDoors) {
    if (access.endpoints.length === 0) {
      throw new AppError("config", "There is no endpoint of etcd.", {
        guidance: "List etcd's client addresses in `endpoints`.",
      });
    }
    this.#access = access;
    this.#doors = doors;
    this.#tls = access.tls === undefined ? undefined : readEtcdTls(access.tls, doors.files);
  }

  /** One key; undefined if it is not there. */
  async get(
    key: Uint8Array,
    options: { readonly revision?: bigint; readonly signal?: AbortSignal } = {},
  ): Promise<EtcdEntry | undefined> {
    return (await this.readKey(key, options)).entries[0];
  }

  /** The same with the revision at which it was read: none or one entry. */
  async readKey(
    key: Uint8Array,
    options: { readonly revision?: bigint; readonly signal?: AbortSignal } = {},
  ): Promise<EtcdRange> {
    const body = { key: encodeBytes(key), ...atRevision(options.revision) };
    const answer = await this.#ask("/v3/kv/range", body, answers.range, options.signal);
    return { revision: options.revision ?? answer.header.revision, entries: answer.kvs };
  }

  /**
   * All keys that begin with `prefix`, sorted by their bytes, at one revision: the current one, or the
   * one that is given. A compaction on the way begins it again at a newer revision; if the revision
   * was given, it is an error of kind `conflict`.
   */
  async readPrefix(
    prefix: Uint8Array,
    options: { readonly revision?: bigint; readonly signal?: AbortSignal } = {},
  ): Promise<EtcdRange> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const entries: EtcdEntry[] = [];
        let revision = options.revision ?? 0n;
        for await (const page of this.listPages(prefix, options)) {
          revision = page.revision;
          entries.push(...page.entries);
          mustBeBounded(entries.length, prefix);
        }
        return { revision, entries };
      } catch (thrown) {
        const mayRepeat = options.revision === undefined && attempt < READ_ATTEMPTS;
        if (!(isCompacted(thrown) && mayRepeat)) throw thrown;
      }
    }
  }

  /** The same in pages, for what may be large; a compaction on the way is an error of kind `conflict`. */
  async *listPages(
    prefix: Uint8Array,
    options: {
      readonly revision?: bigint;
      readonly pageCount?: number;
      readonly signal?: AbortSignal;
    } = {},
  ): AsyncGenerator<EtcdRange, void, undefined> {
    const rangeEnd = encodeBytes(endOfPrefix(prefix));
    let revision = options.revision;
    let key = prefix.length === 0 ? new Uint8Array([0]) : prefix;
    let limit = options.pageCount ?? PAGE_COUNT;
    for (;;) {
      const body = {
        key: encodeBytes(key),
        range_end: rangeEnd,
        limit,
        ...atRevision(revision),
      };
      const answer = await this.#ask("/v3/kv/range", body, answers.range, options.signal);
      // The header tells the newest revision, also when an older one was read.
      revision ??= answer.header.revision;
      yield { revision, entries: answer.kvs };
      const last = answer.kvs.at(-1);
      if (!answer.more || last === undefined) return;
      key = new Uint8Array([...last.key, 0]);
      limit = options.pageCount ?? nextPageCount(answer.kvs);
    }
  }

  /**
   * Writes if every comparison holds. After a lost answer it is sent again: who compares revisions
   * may then be told `succeeded: false` by his own first try, and must read what is there.
   */
  async transact(
    transaction: EtcdTransaction,
    signal?: AbortSignal,
  ): Promise<{ readonly succeeded: boolean; readonly revision: bigint }> {
    const body = encodeTransaction(transaction);
    const answer = await this.#ask("/v3/kv/txn", body, answers.transaction, signal);
    return { succeeded: answer.succeeded, revision: answer.header.revision };
  }

  /** What the first endpoint that answers says of itself. */
  async status(signal?: AbortSignal): Promise<EtcdStatus> {
    return await this.#ask("/v3/maintenance/status", {}, answers.status, signal);
  }

  /** The members of the cluster. */
  async members(signal?: AbortSignal): Promise<readonly EtcdMember[]> {
    return (await this.#ask("/v3/cluster/member/list", {}, answers.members, signal)).members;
  }

  /**
   * A snapshot of the whole database as it is sent, part by part, its SHA-256 at the end; the stream
   * is not tried again. `timeoutMs` is for all of it.
   */
  async snapshot(options: {
    readonly timeoutMs: number;
    readonly signal?: AbortSignal;
  }): Promise<{ readonly endpoint: string; readonly parts: ReadableStream<Uint8Array> }> {
    return await this.#everywhere(async (endpoint) => {
      const { signal, timeoutMs } = options;
      const how = { body: {}, timeoutMs, ...(signal === undefined ? {} : { signal }) };
      const response = await this.#send(endpoint, "/v3/maintenance/snapshot", how);
      if (response.body === null) {
        throw new AppError("unavailable", `${endpoint} sent an empty snapshot.`);
      }
      return { endpoint, parts: response.body };
    }, options.signal);
  }

  async #ask<Schema extends z.ZodType>(
    path: string,
    body: object,
    schema: Schema,
    signal: AbortSignal | undefined,
  ): Promise<z.output<Schema>> {
    const timeoutMs = this.#access.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
    return await this.#everywhere(async (endpoint) => {
      const how = { body, timeoutMs, ...(signal === undefined ? {} : { signal }) };
      const response = await this.#send(endpoint, path, how);
      return parseAnswer(endpoint, schema, await response.text());
    }, signal);
  }

  /** Rounds over all endpoints; ends at the first success, or the first error that is for good. */
  async #everywhere<Result>(
    call: (endpoint: string) => Promise<Result>,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    const { clock, random } = this.#doors;
    const round = async (): Promise<Result> => await this.#oneRound(call, signal);
    return await retry(round, {
      clock,
      random,
      attempts: ROUND_COUNT,
      baseMs: 200,
      maxMs: 2_000,
      ...(signal === undefined ? {} : { signal }),
    });
  }

  async #oneRound<Result>(
    call: (endpoint: string) => Promise<Result>,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    const { endpoints } = this.#access;
    const failures: { endpoint: string; error: AppError }[] = [];
    for (let step = 0; step < endpoints.length; step += 1) {
      const index = (this.#preferred + step) % endpoints.length;
      const endpoint = endpoints[index] ?? "";
      try {
        const result = await call(endpoint);
        this.#preferred = index;
        return result;
      } catch (thrown) {
        signal?.throwIfAborted();
        const described = describeTransport(endpoint, thrown);
        if (!(described instanceof AppError) || !isOfEndpoint(described)) throw described;
        failures.push({ endpoint, error: described });
      }
    }
    const isAlive = await this.#anyoneAlive(failures, signal);
    throw describeOutage(failures, isAlive);
  }

  /** True where somebody who timed out still tells its version: etcd runs, and lacks a majority. */
  async #anyoneAlive(
    failures: readonly { readonly endpoint: string; readonly error: AppError }[],
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    for (const { endpoint, error } of failures) {
      if (error.kind !== "timeout") continue;
      try {
        await this.#request(`${endpoint}/version`, {
          timeoutMs: ALIVE_TIMEOUT_MS,
          ...(signal === undefined ? {} : { signal }),
        });
        return true;
      } catch {
        // Not this one; the failure that matters is the one at hand.
      }
    }
    return false;
  }

  async #send(endpoint: string, path: string, how: SendOptions): Promise<Response> {
    const { user } = this.#access;
    for (let attempt = 1; ; attempt += 1) {
      if (user !== undefined) this.#token ??= await this.#authenticate(endpoint, user, how);
      try {
        return await this.#post(endpoint, path, { ...how, token: this.#token ?? "" });
      } catch (thrown) {
        const isExpired = thrown instanceof AppError && thrown.context["reason"] === TOKEN_EXPIRED;
        if (!isExpired || attempt > 1) throw thrown;
        this.#token = undefined;
      }
    }
  }

  /** A token; empty where etcd has authentication switched off, and takes anybody. */
  async #authenticate(
    endpoint: string,
    user: { readonly name: string; readonly password: Secret },
    how: SendOptions,
  ): Promise<string> {
    const body = { name: user.name, password: user.password.reveal() };
    try {
      const options = {
        ...how,
        body,
        timeoutMs: this.#access.requestTimeoutMs ?? REQUEST_TIMEOUT_MS,
      };
      const response = await this.#post(endpoint, "/v3/auth/authenticate", {
        ...options,
        token: "",
      });
      return parseAnswer(endpoint, answers.authenticate, await response.text()).token;
    } catch (thrown) {
      const isOff = thrown instanceof AppError && thrown.message.includes("not enabled");
      if (isOff) return "";
      throw thrown;
    }
  }

  async #post(
    endpoint: string,
    path: string,
    how: SendOptions & { readonly token: string },
  ): Promise<Response> {
    const response = await this.#request(`${endpoint}${path}`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        ...(how.token === "" ? {} : { authorization: how.token }),
      },
      body: JSON.stringify(how.body),
      timeoutMs: how.timeoutMs,
      ...(how.signal === undefined ? {} : { signal: how.signal }),
    });
    if (response.ok) return response;
    throw describeRefusal(endpoint, response.status, await response.text());
  }

  async #request(url: string, init: Parameters<Outside["fetch"]>[1]): Promise<Response> {
    const tls = this.#tls;
    return await this.#doors.outside.fetch(url, {
      ...init,
      redirect: "error",
      ...(tls === undefined ? {} : { tls }),
    });
  }
}

type SendOptions = {
  readonly body: object;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
};

/** Another endpoint may do better: its address, its certificate or its view of the cluster is bad. */
function isOfEndpoint(error: AppError): boolean {
  return error.kind === "unavailable" || error.kind === "timeout" || error.kind === "config";
}

/** True for the error of a revision that etcd has compacted meanwhile. */
export function isCompacted(thrown: unknown): boolean {
  return thrown instanceof AppError && thrown.context["reason"] === "compacted";
}

/** As many keys as make a page of the wanted size, if they go on as these were. */
function nextPageCount(entries: readonly EtcdEntry[]): number {
  const sizeBytes = entries.reduce((sum, { key, value }) => sum + key.length + value.length, 0);
  const fitting = Math.floor((entries.length * PAGE_SIZE_BYTES_WANTED) / Math.max(sizeBytes, 1));
  return Math.min(Math.max(fitting, 1), PAGE_COUNT_MAX, entries.length * 4);
}

function atRevision(revision: bigint | undefined): object {
  return revision === undefined ? {} : { revision: revision.toString() };
}

function mustBeBounded(count: number, prefix: Uint8Array): void {
  if (count <= KEY_COUNT_MAX) return;
  throw new AppError("refused", `More than ${KEY_COUNT_MAX} keys begin with the prefix.`, {
    guidance: "Choose narrower prefixes, or a snapshot of the whole database.",
    context: { prefix: Buffer.from(prefix).toString() },
  });
}

function parseAnswer<Schema extends z.ZodType>(
  endpoint: string,
  schema: Schema,
  text: string,
): z.output<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new AppError("refused", `${endpoint} did not answer as etcd does.`, {
      guidance: "Check that the address is etcd's client address.",
      context: { endpoint },
      cause,
    });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new AppError("refused", `${endpoint} did not answer as etcd does.`, {
    guidance: "Check that the address is etcd's client address, of version 3.4 or newer.",
    context: { endpoint },
    cause: parsed.error,
  });
}
