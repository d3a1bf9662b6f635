/**
 * What etcd's refusals mean, and what to do about each. The gateway answers with a text of etcd's own;
 * those texts have been the same since 3.4, the codes around them have not.
 */
import { AppError } from "../../base/error.ts";
import type { AppErrorOptions, ErrorKind } from "../../base/error.ts";
import { failureBody } from "./etcd-messages.ts";

/** Why a token must be had anew; never leaves the client. */
export const TOKEN_EXPIRED = "token-expired";

type Meaning = {
  readonly words: readonly string[];
  readonly kind: ErrorKind;
  readonly message: string;
  readonly guidance: string;
  readonly retryable?: boolean;
  readonly reason?: string;
};

const QUORUM_GUIDANCE =
  "More than half of etcd's members must run and reach each other: look at " +
  "`etcdctl endpoint status --cluster`, start the missing ones, and run this again.";

const MEANINGS: readonly Meaning[] = [
  {
    words: ["invalid auth token", "revision of auth store is old"],
    kind: "permission",
    message: "etcd no longer takes the token that it gave",
    guidance: "Run it again; if that does not help, look at etcd's --auth-token.",
    reason: TOKEN_EXPIRED,
  },
  {
    words: ["authentication failed", "invalid user ID or password"],
    kind: "permission",
    message: "etcd does not know the user, or the password is wrong",
    guidance: "Correct `user` in the configuration, or the user's password in etcd.",
  },
  {
    words: ["user name is empty", "user name not found"],
    kind: "permission",
    message: "etcd wants a user and a password",
    guidance:
      "Give `user` with a name and a password in the configuration. A client certificate alone is " +
      "no user for etcd's HTTP gateway.",
  },
  {
    words: ["permission denied"],
    kind: "permission",
    message: "etcd's user may not do this",
    guidance:
      "Grant its role the keys in question (`etcdctl role grant-permission`): read for backups, " +
      "readwrite for restores; a snapshot needs the role root.",
  },
  {
    words: ["has been compacted"],
    kind: "conflict",
    message: "etcd compacted the revision that was being read",
    guidance: "Run it again; it will read a newer revision.",
    retryable: true,
    reason: "compacted",
  },
  {
    words: ["request is too large", "message larger than max"],
    kind: "refused",
    message: "the request is larger than etcd takes",
    guidance: "Raise etcd's --max-request-bytes for the time of the restore.",
  },
  {
    words: ["too many operations"],
    kind: "refused",
    message: "the transaction has more operations than etcd takes",
    guidance: "Raise etcd's --max-txn-ops for the time of the restore.",
  },
  {
    words: ["database space exceeded"],
    kind: "no-space",
    message: "etcd's database is full and takes no writes",
    guidance: "Compact and defragment it, or raise --quota-backend-bytes, then disarm the alarm.",
  },
  {
    words: ["no leader", "request timed out", "leader changed", "not ready", "unhealthy"],
    kind: "unavailable",
    message: "etcd has no leader, or no majority of its members",
    guidance: QUORUM_GUIDANCE,
  },
  {
    words: ["HTTP request to an HTTPS server"],
    kind: "config",
    message: "etcd speaks TLS at this address",
    guidance: "Write the endpoint with https://, and name its authority in `tls.ca`.",
  },
];

/** The AppError for an answer that is not 2xx. */
export function describeRefusal(endpoint: string, status: number, body: string): AppError {
  const said = textOfBody(body);
  const meaning = MEANINGS.find(({ words }) => words.some((word) => said.includes(word)));
  const context = { endpoint, status, ...(meaning?.reason && { reason: meaning.reason }) };
  if (meaning !== undefined) {
    const { kind, message, guidance, retryable } = meaning;
    const options: AppErrorOptions = { guidance, context };
    return new AppError(kind, `${sentence(message)} (${endpoint}: ${said}).`, {
      ...options,
      ...(retryable === undefined ? {} : { retryable }),
    });
  }
  const isPassing = status === 429 || status >= 502;
  const text = said === "" ? `HTTP ${status}` : `HTTP ${status}, ${said}`;
  return new AppError(isPassing ? "unavailable" : "refused", `${endpoint} answered ${text}.`, {
    guidance:
      status === 404
        ? "The address is that of another service, or of an etcd older than 3.4."
        : "Look at etcd's log.",
    context,
  });
}

/** The AppError for a connection that came to nothing; errors that are none of it pass through. */
export function describeTransport(endpoint: string, thrown: unknown): unknown {
  if (!(thrown instanceof AppError) || thrown.context["status"] !== undefined) return thrown;
  const { cause } = thrown;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const advice = TRANSPORT_ADVICE.find(({ codes }) => codes.test(code));
  if (advice === undefined) return thrown;
  return new AppError(advice.kind, `${endpoint} ${advice.message} (${code}).`, {
    guidance: advice.guidance,
    context: { endpoint, code },
    cause: thrown,
  });
}

const TRANSPORT_ADVICE: readonly {
  readonly codes: RegExp;
  readonly kind: ErrorKind;
  readonly message: string;
  readonly guidance: string;
}[] = [
  {
    codes: /ALTNAME/,
    kind: "config",
    message: "shows a certificate for other names",
    guidance: "Use one of its names in `endpoints`, or issue a certificate that has this one.",
  },
  {
    codes: /CERT_HAS_EXPIRED|CERT_NOT_YET_VALID/,
    kind: "config",
    message: "shows a certificate that is not valid now",
    guidance: "Renew etcd's certificate, or correct the clock of this machine.",
  },
  {
    codes: /SELF_SIGNED|UNABLE_TO_|CERT_UNTRUSTED|CERT_SIGNATURE/,
    kind: "config",
    message: "shows a certificate that nobody vouches for",
    guidance: "Name the authority that signed etcd's certificate in `tls.ca`.",
  },
  {
    // What Bun says when the server ends the handshake.
    codes: /EPROTO|ERR_SSL|ALERT/,
    kind: "config",
    message: "refuses the TLS connection",
    guidance:
      "It wants a client certificate of its own authority: give `tls.certificate` and `tls.key`.",
  },
  {
    codes: /^ECONNRESET$/,
    kind: "unavailable",
    message: "closes the connection",
    guidance:
      "Check whether etcd speaks TLS there: https:// in `endpoints` if it does, else http://.",
  },
  {
    codes: /^(ECONNREFUSED|ConnectionRefused)$/,
    kind: "unavailable",
    message: "is not listened on",
    guidance: "Check `endpoints` in the configuration, and that etcd runs.",
  },
  {
    codes: /^(FailedToOpenSocket|ENOTFOUND|EAI_AGAIN|DNS\w*)$/,
    kind: "unavailable",
    message: "cannot be found",
    guidance: "Check the host names in `endpoints`, and that this machine can resolve them.",
  },
];

/** Nobody answered, or those who did could not serve: the most telling failure decides. */
export function describeOutage(
  failures: readonly { readonly endpoint: string; readonly error: AppError }[],
  isAlive: boolean,
): AppError {
  const errors = failures.map(({ error }) => error);
  const served = errors.find(({ context }) => context["status"] !== undefined);
  if (served !== undefined) return served;
  const telling = errors.find(({ kind }) => kind === "config") ?? errors[0];
  const each = errors.map(({ message }) => message).join(" ");
  if (isAlive) {
    return new AppError("timeout", `etcd runs, and does not serve requests in time. ${each}`, {
      guidance: QUORUM_GUIDANCE,
      ...(telling === undefined ? {} : { cause: telling }),
    });
  }
  const message =
    errors.length === 1 ? `etcd cannot be used: ${each}` : `No etcd can be used. ${each}`;
  const guidance = telling?.guidance;
  return new AppError(telling?.kind ?? "unavailable", message, {
    retryable: errors.some(({ retryable }) => retryable),
    ...(guidance === undefined ? {} : { guidance }),
    ...(telling === undefined ? {} : { cause: telling, context: telling.context }),
  });
}

function textOfBody(body: string): string {
  try {
    const parsed = failureBody.parse(JSON.parse(body));
    const inner = typeof parsed.error === "string" ? parsed.error : parsed.error?.message;
    return parsed.message ?? inner ?? "";
  } catch {
    return body.trim().slice(0, 200);
  }
}

function sentence(text: string): string {
  return text.startsWith("etcd") ? text : text.charAt(0).toUpperCase() + text.slice(1);
}
