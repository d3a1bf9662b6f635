/**
 * The settings of a site in S3, and what of them is checked before anything is sent.
 */
import { readFile } from "node:fs/promises";
import type { Clock } from "../base/doors.ts";
import { AppError } from "../base/error.ts";
import { isObjectKey } from "./object-key.ts";
import type { LockMode } from "./site.ts";

/** Where the bucket is and how to talk to it. */
export type S3SiteOptions = {
  readonly name: string;
  readonly bucket: string;
  /** Keys begin with it and a slash. */
  readonly prefix?: string;
  readonly region?: string;
  /** For stores other than AWS: `https://s3.example.com`. */
  readonly endpoint?: string;
  readonly forcePathStyle?: boolean;
  /** Without a key the SDK looks in its usual places (environment, files, the machine's role). */
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
  readonly sessionToken?: string;
  /** PEM file with the authorities to trust instead of the system's. */
  readonly caFile?: string;
  /** `http://user:password@host:port`, the value of HTTPS_PROXY or HTTP_PROXY. */
  readonly proxy?: string;
  /** Hosts that are reached directly, as in NO_PROXY. */
  readonly noProxy?: string;
  /** Locks all that is created but `probe/`, each to the end of the period after next. */
  readonly lock?: { readonly mode: LockMode; readonly periodMs: number };
  /** Has the store encrypt what it keeps: with its own key, or with one of its key service. */
  readonly sse?: "AES256" | "aws:kms";
  /** Which key of the key service; the bucket's default if left out. */
  readonly kmsKeyId?: string;
  /** Of `pack/` (`data`) and of all else (`metadata`); the store's default if left out. */
  readonly storageClass?: { readonly data?: string; readonly metadata?: string };
  /** For stores that ignore If-None-Match: looks first, then writes. Two writers lose backups. */
  readonly unsafeCreate?: "single-writer";
  /** For the ends of locks; the machine's if left out. */
  readonly clock?: Clock;
  /** Requests at once. */
  readonly concurrency?: number;
  /** `node` (the SDK's handler over Node's HTTP client) by default; `fetch` costs less CPU. */
  readonly transport?: "node" | "fetch";
  /** The longest wait for an answer, beside the time for its bytes (256 KiB a second at least). */
  readonly requestTimeoutMs?: number;
};

/** Credentials for the SDK; nothing if it shall look in its usual places. */
export function s3Credentials(options: S3SiteOptions): {
  credentials?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string };
} {
  const { accessKeyId, secretAccessKey, sessionToken } = options;
  if (accessKeyId === undefined && secretAccessKey === undefined) return {};
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    throw new AppError("config", `Site ${options.name} has half of its credentials.`, {
      guidance: "Set both accessKeyId and secretAccessKey, or neither.",
      context: { site: options.name },
    });
  }
  return {
    credentials: {
      accessKeyId,
      secretAccessKey,
      ...(sessionToken === undefined ? {} : { sessionToken }),
    },
  };
}

/** The text of the PEM file with authorities. */
export async function readAuthorities(site: string, caFile: string): Promise<string> {
  try {
    return await readFile(caFile, "utf8");
  } catch (thrown) {
    throw new AppError("config", `The caFile ${caFile} of site ${site} cannot be read.`, {
      guidance: "Name a PEM file with the certificates of the authorities to trust.",
      context: { site },
      cause: thrown,
    });
  }
}

/** What stands before every key: empty, or with a slash at its end. */
export function s3KeyPrefix(options: S3SiteOptions): string {
  const prefix = (options.prefix ?? "").replace(/^\/+|\/+$/g, "");
  if (prefix === "") return "";
  if (isObjectKey(prefix)) return `${prefix}/`;
  throw new AppError("config", `The prefix of site ${options.name} is not a key.`, {
    guidance: "Use letters, digits, '.', '_', '-' and single slashes.",
    context: { site: options.name, prefix },
  });
}
