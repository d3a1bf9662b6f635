/**
 * The route of archives: files of a backup as one stream. What cannot be done is refused before the
 * answer begins; what breaks after that breaks the connection, so that nobody takes a part for the
 * whole. The reader sets the pace.
 */
import { z } from "zod";
import { toAppError } from "../base/error.ts";
import type { BackupArchive } from "../cas/read/archive-backup.ts";
import type { ArchiveFormat } from "../cas/read/archive.ts";
import { ARCHIVE_FORMATS } from "../cas/read/archive.ts";
import { NOTICE_HEADER, noticeHeader } from "./notice-header.ts";
import { defineRoute, mustParse } from "./route.ts";
import type { Call } from "./route.ts";

const CONTENT_TYPES: Readonly<Record<ArchiveFormat, string>> = {
  zip: "application/zip",
  tar: "application/x-tar",
};

const NODE_COUNT_MAX = 1000;
const PATH_COUNT_MAX = 1000;

const nodeName = z.string().min(1).max(1000);
const glob = z.string().min(1).max(4096);

const repeatedSchema = z.strictObject({
  nodes: z.array(nodeName).max(NODE_COUNT_MAX),
  paths: z.array(glob).max(PATH_COUNT_MAX),
});

/** GET /v1/backups/:backup/archive: it takes an admin, as a restore does, since it hands out data. */
export const downloadArchive = defineRoute({
  method: "GET",
  path: "/v1/backups/:backup/archive",
  summary: "Files of a backup as a ZIP or tar archive; `node` and `path` may be repeated",
  access: "admin",
  query: z.strictObject({
    format: z.enum(ARCHIVE_FORMATS).default("zip"),
    incomplete: z.stringbool().default(false),
    node: nodeName.optional(),
    path: glob.optional(),
  }),
  answer: "application/octet-stream",
  answerHeaders: {
    [NOTICE_HEADER]: "Why it is not the primary that is read; percent-encoded UTF-8",
  },
  run: async (call) => {
    const { context, parameters, query, request } = call;
    call.takeYourTime();
    const gone = new AbortController();
    const signal = AbortSignal.any([call.signal, gone.signal]);
    const { searchParams } = new URL(request.url);
    const repeated = { nodes: searchParams.getAll("node"), paths: searchParams.getAll("path") };
    const { nodes, paths } = mustParse(repeatedSchema, repeated, "query");
    const node = context.node();
    const archive = await node.archive(
      {
        backup: parameters["backup"] ?? "",
        format: query.format,
        incomplete: query.incomplete,
        ...(nodes.length === 0 ? {} : { nodes }),
        ...(paths.length === 0 ? {} : { paths }),
      },
      signal,
    );
    const headers = {
      ...noticeHeader(node.notice),
      "content-type": CONTENT_TYPES[query.format],
      "content-disposition": contentDisposition(`${archive.backup.name}.${query.format}`),
      "cache-control": "no-store",
    };
    if (request.method === "HEAD") return new Response(null, { headers });
    return new Response(streamOf(archive, gone, call), { headers });
  },
});

/** Reads on only when the connection takes more. */
function streamOf(
  archive: BackupArchive,
  gone: AbortController,
  call: Pick<Call, "context" | "signal">,
): ReadableStream<Uint8Array> {
  const chunks = archive.bytes();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await chunks.next();
          if (done === true) controller.close();
          else controller.enqueue(value);
        } catch (thrown) {
          const error = toAppError(thrown);
          const fields = { backup: archive.backup.id, error };
          if (!call.signal.aborted) call.context.log.warn("an archive broke off", fields);
          controller.error(error);
        }
      },
      async cancel() {
        gone.abort();
        await chunks.return();
      },
    },
    new CountQueuingStrategy({ highWaterMark: 0 }),
  );
}

/** A name of ASCII for old readers, and the right one in UTF-8. */
function contentDisposition(fileName: string): string {
  const plain = fileName.replaceAll(/[^\w.+-]/g, "_");
  const encoded = encodeURIComponent(fileName).replaceAll(
    /['()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${plain}"; filename*=UTF-8''${encoded}`;
}
