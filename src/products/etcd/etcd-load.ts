/**
 * Writes a dump of keys back into etcd: only what differs, in transactions within etcd's limits, each
 * of which compares the revisions that were read, so that nobody's newer write is lost. A second run
 * changes nothing. Keys with a lease belong to those who run, and are left alone unless the dump has
 * them. Memory: a page of etcd and one transaction.
 */
import type { FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { TRANSACTION_OPERATION_COUNT_MAX, TRANSACTION_SIZE_BYTES_MAX } from "./etcd-client.ts";
import type { EtcdClient } from "./etcd-client.ts";
import { listRanges, readDump } from "./etcd-dump.ts";
import type { DumpEntry } from "./etcd-dump.ts";
import { showKey, sizeOfTransaction } from "./etcd-messages.ts";
import type { EtcdCompare, EtcdEntry, EtcdWrite } from "./etcd-messages.ts";

/** What is done with keys below the prefixes that the dump does not have. */
export type ExtraKeys = "refuse" | "delete" | "keep";

/** Where the dump is, and what to do. */
export type LoadOptions = {
  readonly files: FileSystem;
  /** Of the dump, a byte string. */
  readonly path: string;
  readonly ranges: readonly string[];
  readonly extra: ExtraKeys;
  readonly signal?: AbortSignal;
};

/** What was done. */
export type Loaded = {
  readonly written: number;
  readonly deleted: number;
  readonly unchanged: number;
  readonly extraKept: number;
};

type Difference = {
  readonly wanted: DumpEntry | undefined;
  readonly there: EtcdEntry | undefined;
};

type Change = { readonly compare: EtcdCompare; readonly write: EtcdWrite };

const EXTRA_COUNT_SHOWN = 5;

/** Makes etcd hold what the dump says below its prefixes; nothing is written if it is refused. */
export async function loadKeys(client: EtcdClient, options: LoadOptions): Promise<Loaded> {
  if (options.extra === "refuse") await refuseExtra(client, options);
  const counts = { written: 0, deleted: 0, unchanged: 0, extraKept: 0 };
  let batch: Change[] = [];
  const flush = async (): Promise<void> => {
    if (batch.length > 0) await write(client, batch, options.signal);
    batch = [];
  };
  for await (const { wanted, there } of listDifferences(client, options)) {
    const change = changeOf(wanted, there, options.extra);
    if (change === undefined) {
      if (wanted === undefined) counts.extraKept += 1;
      else counts.unchanged += 1;
      continue;
    }
    if (wanted === undefined) counts.deleted += 1;
    else counts.written += 1;
    if (!fits([...batch, change])) await flush();
    batch.push(change);
  }
  await flush();
  return counts;
}

async function refuseExtra(client: EtcdClient, options: LoadOptions): Promise<void> {
  const shown: string[] = [];
  let extraCount = 0;
  for await (const { wanted, there } of listDifferences(client, options)) {
    if (wanted !== undefined || there === undefined || there.lease !== 0n) continue;
    extraCount += 1;
    if (shown.length < EXTRA_COUNT_SHOWN) shown.push(showKey(there.key));
  }
  if (extraCount === 0) return;
  const more = extraCount > shown.length ? ` and ${extraCount - shown.length} more` : "";
  throw new AppError(
    "refused",
    `etcd holds keys that the backup does not: ${shown.join(", ")}${more}.`,
    {
      guidance: "Set `product.extra` to `delete` or `keep`, or remove them, and restore again.",
      context: { extraCount },
    },
  );
}

/** The dump and etcd side by side, by key. */
async function* listDifferences(
  client: EtcdClient,
  options: LoadOptions,
): AsyncIterable<Difference> {
  const { files, path, ranges, signal } = options;
  const dump = readDump(files, path, ranges)[Symbol.iterator]();
  try {
    let wanted = dump.next();
    for await (const page of listRanges(client, ranges, signal === undefined ? {} : { signal })) {
      for (const there of page.entries) {
        while (wanted.done !== true && Buffer.compare(wanted.value.key, there.key) < 0) {
          yield { wanted: wanted.value, there: undefined };
          wanted = dump.next();
        }
        const isSame = wanted.done !== true && Buffer.compare(wanted.value.key, there.key) === 0;
        yield { wanted: isSame ? wanted.value : undefined, there };
        if (isSame) wanted = dump.next();
      }
    }
    for (; wanted.done !== true; wanted = dump.next()) {
      yield { wanted: wanted.value, there: undefined };
    }
  } finally {
    dump.return?.();
  }
}

function changeOf(
  wanted: DumpEntry | undefined,
  there: EtcdEntry | undefined,
  extra: ExtraKeys,
): Change | undefined {
  const modRevision = there?.modRevision ?? 0n;
  if (wanted !== undefined) {
    const { key, value } = wanted;
    const isThere = there !== undefined && there.lease === 0n;
    if (isThere && Buffer.compare(there.value, value) === 0) return undefined;
    return { compare: { key, modRevision }, write: { put: key, value } };
  }
  if (there === undefined || there.lease !== 0n || extra !== "delete") return undefined;
  return { compare: { key: there.key, modRevision }, write: { delete: there.key } };
}

async function write(
  client: EtcdClient,
  changes: readonly Change[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const transaction = transactionOf(changes);
  const { succeeded } = await client.transact(transaction, signal);
  if (succeeded) return;
  // The answer to a first try may have been lost: then all is as it should be.
  for (const { write } of changes) {
    const key = "put" in write ? write.put : write.delete;
    const there = await client.get(key, signal === undefined ? {} : { signal });
    const wanted = "put" in write ? write.value : undefined;
    const isDone =
      wanted === undefined || there === undefined
        ? wanted === there?.value
        : Buffer.compare(wanted, there.value) === 0;
    if (isDone) continue;
    throw new AppError("conflict", `Somebody changed ${showKey(key)} during the restore.`, {
      guidance: "Stop what writes below these prefixes, and restore again.",
      context: { key: showKey(key) },
    });
  }
}

function fits(changes: readonly Change[]): boolean {
  if (changes.length === 1) return true;
  const isSmall = sizeOfTransaction(transactionOf(changes)) <= TRANSACTION_SIZE_BYTES_MAX;
  return isSmall && changes.length <= TRANSACTION_OPERATION_COUNT_MAX;
}

function transactionOf(changes: readonly Change[]) {
  return {
    compare: changes.map(({ compare }) => compare),
    writes: changes.map(({ write }) => write),
  };
}
