/**
 * `astacus export`: files of a backup as a ZIP or tar, to a file or to stdout, from a server or
 * straight from the site. A file appears under its name when it is whole and on the disk; what is
 * there already is never written over.
 */
import * as fs from "node:fs";
import { realClock } from "../base/clock.ts";
import { getErrnoCode } from "../base/errno.ts";
import { AppError } from "../base/error.ts";
import type { BackupArchiveRequest } from "../cas/read/archive-backup.ts";
import type { ArchiveFormat } from "../cas/read/archive.ts";
import { readNotice } from "../server/notice-header.ts";
import { printDone, sayNotice } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { connect } from "./connect.ts";
import { EXIT } from "./exit-code.ts";
import { isOffline } from "./reader.ts";
import { size } from "./table.ts";

const STDOUT = "-";
const PROGRESS_MS = 10_000;

/** As commander hands them over. */
export type ExportOptions = {
  readonly output: string;
  readonly format?: ArchiveFormat;
  readonly node?: readonly string[];
  readonly path?: readonly string[];
  readonly incomplete?: boolean;
};

/** Where bytes go. */
type Target = {
  readonly write: (bytes: Uint8Array) => Promise<void>;
  readonly finish: () => void;
  /** Leaves nothing behind. */
  readonly abandon: () => void;
};

/** Writes an archive. */
export async function exportBackup(
  run: CommandRun,
  backup: string,
  own: ExportOptions,
): Promise<CommandEnd> {
  const { output } = own;
  const isStdout = output === STDOUT;
  mustBeWritable(output);
  const format = own.format ?? (/\.tar$/i.test(output) ? "tar" : "zip");
  const request: BackupArchiveRequest = {
    backup,
    format,
    ...(own.node === undefined ? {} : { nodes: own.node }),
    ...(own.path === undefined ? {} : { paths: own.path }),
    ...(own.incomplete === true ? { incomplete: true } : {}),
  };
  const copy = async (chunks: AsyncIterable<Uint8Array>): Promise<number> =>
    await copyTo(isStdout ? openStdout() : openFile(output), chunks, run);
  const { sizeBytes, notice } = isOffline(run)
    ? await exportOffline(run, request, copy)
    : await exportFromServer(run, request, copy);
  if (!isStdout) {
    const answer = { backup, format, output, sizeBytes };
    return printDone(run, { ...answer, ...(notice === undefined ? {} : { notice }) }, () => {
      return `${output}: ${size(sizeBytes)}`;
    });
  }
  run.terminal.say(`Written: ${size(sizeBytes)}`);
  return EXIT.done;
}

type Copy = (chunks: AsyncIterable<Uint8Array>) => Promise<number>;

type Exported = { readonly sizeBytes: number; readonly notice?: string | undefined };

async function exportOffline(
  run: CommandRun,
  request: BackupArchiveRequest,
  copy: Copy,
): Promise<Exported> {
  const { withOffline } = await import("./offline.ts");
  return await withOffline(run, async (offline, { notice }) => {
    const archive = await offline.archive(request);
    return { sizeBytes: await copy(archive.bytes()), notice };
  });
}

async function exportFromServer(
  run: CommandRun,
  request: BackupArchiveRequest,
  copy: Copy,
): Promise<Exported> {
  const stop = new AbortController();
  const interrupt = (): void => stop.abort(new AppError("cancelled", "Cancelled."));
  process.once("SIGINT", interrupt);
  try {
    const client = await connect(run);
    const query = new URLSearchParams({ format: request.format });
    for (const node of request.nodes ?? []) query.append("node", node);
    for (const path of request.paths ?? []) query.append("path", path);
    if (request.incomplete === true) query.set("incomplete", "true");
    const path = `/v1/backups/${encodeURIComponent(request.backup ?? "")}/archive`;
    const { body, headers } = await client.download(path, query, stop.signal);
    const notice = readNotice(headers);
    sayNotice(run, { notice });
    return { sizeBytes: await copy(whole(body, client.url, stop)), notice };
  } finally {
    process.off("SIGINT", interrupt);
  }
}

/** The bytes of an answer; one that breaks off is an error. */
async function* whole(
  body: ReadableStream<Uint8Array>,
  url: string,
  stop: AbortController,
): AsyncGenerator<Uint8Array> {
  try {
    yield* body;
  } catch (thrown) {
    stop.signal.throwIfAborted();
    throw new AppError("unavailable", `${url} broke off in the middle of the archive.`, {
      guidance: "The server's log says why. Nothing was kept; run it again.",
      cause: thrown,
    });
  }
}

async function copyTo(
  target: Target,
  chunks: AsyncIterable<Uint8Array>,
  run: CommandRun,
): Promise<number> {
  let sizeBytes = 0;
  let saidMs = realClock.monotonic();
  try {
    for await (const bytes of chunks) {
      await target.write(bytes);
      sizeBytes += bytes.length;
      if (realClock.monotonic() - saidMs < PROGRESS_MS) continue;
      saidMs = realClock.monotonic();
      run.terminal.say(`export: ${size(sizeBytes)}`);
    }
    target.finish();
    return sizeBytes;
  } catch (thrown) {
    target.abandon();
    throw thrown;
  }
}

function mustBeWritable(output: string): void {
  if (output === STDOUT) {
    if (!process.stdout.isTTY) return;
    throw new AppError("usage", "An archive is nothing for a terminal.", {
      guidance: "Name a file, or send stdout to one or to another program.",
    });
  }
  if (!fs.existsSync(output)) return;
  throw alreadyThere(output);
}

function alreadyThere(output: string): AppError {
  return new AppError("usage", `${output} is there already.`, {
    guidance: "Remove it, or take another name.",
  });
}

/** Made when the first bytes are there, so that what is refused leaves no trace. */
function openFile(output: string): Target {
  const temporary = `${output}.${process.pid}.part`;
  const handle = attempt(output, () => fs.openSync(temporary, "wx", 0o600));
  let isOpen = true;
  const close = (): void => {
    if (isOpen) fs.closeSync(handle);
    isOpen = false;
  };
  return {
    async write(bytes) {
      attempt(output, () => {
        for (let done = 0; done < bytes.length;) done += fs.writeSync(handle, bytes, done);
      });
    },
    finish() {
      attempt(output, () => fs.fsyncSync(handle));
      close();
      attempt(output, () => giveName(temporary, output));
    },
    abandon() {
      close();
      fs.rmSync(temporary, { force: true });
    },
  };
}

/** A link, unlike a rename, takes no name from anybody; not every disk has links. */
function giveName(temporary: string, output: string): void {
  try {
    fs.linkSync(temporary, output);
    fs.unlinkSync(temporary);
  } catch (thrown) {
    if (getErrnoCode(thrown) === "EEXIST") throw thrown;
    fs.renameSync(temporary, output);
  }
}

function openStdout(): Target {
  // A reader that goes away is told by the write that fails.
  const ignore = (): void => {};
  process.stdout.on("error", ignore);
  const end = (): void => void process.stdout.off("error", ignore);
  return {
    async write(bytes) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      process.stdout.write(bytes, (error) => {
        if (error === null || error === undefined) resolve();
        else reject(writeError("stdout", error));
      });
      await promise;
    },
    finish: end,
    abandon: end,
  };
}

function attempt<Result>(output: string, work: () => Result): Result {
  try {
    return work();
  } catch (thrown) {
    throw writeError(output, thrown);
  }
}

function writeError(output: string, thrown: unknown): AppError {
  const code = getErrnoCode(thrown) ?? "unknown";
  if (code === "EEXIST") return alreadyThere(output);
  const kind = code === "ENOSPC" || code === "EDQUOT" ? "no-space" : "permission";
  return new AppError(kind, `${output} cannot be written (${code}).`, {
    guidance: "Check the folder, its permissions and its free space.",
    context: { code },
    cause: thrown,
  });
}
