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

/** The AppError for a connection that came to nothing; others are passed through. */
export function describeTransport(endpoint: string, thrown: unknown): unknown {
  if (!(thrown instanceof AppError)) return thrown;
  const { cause } = thrown;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const said = `${code} ${cause instanceof Error ? cause.message : ""}`;
  const advice = TLS_ADVICE.find(([pattern]) => pattern.test(said))?.[1];
  if (advice === undefined) return thrown;
  const reason = code === "" ? (cause instanceof Error ? cause.message : "TLS") : code;
  return new AppError("config", `No TLS connection to ${endpoint}: ${reason}.`, {
    guidance: advice,
    context: { endpoint, code },
    cause: thrown,
  });
}

const TLS_ADVICE: readonly (readonly [RegExp, string])[] = [
  [
    /ALTNAME|HOSTNAME/i,
    "The certificate is for other names: use one of them in `endpoints`, or issue one with this address.",
  ],
  [
    /CERT_HAS_EXPIRED|CERT_NOT_YET_VALID/i,
    "Renew etcd's certificate, or correct the clock of this machine.",
  ],
  [
    /SELF_SIGNED|UNABLE_TO_|UNKNOWN_CA|CERT_UNTRUSTED|ISSUER/i,
    "Name the authority that signed etcd's certificate in `tls.ca`.",
  ],
  [
    /BAD_CERTIFICATE|CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|ALERT/i,
    "etcd wants a client certificate of its authority: give `tls.certificate` and `tls.key`.",
  ],
  [
    /WRONG_VERSION_NUMBER|ERR_SSL|UNKNOWN_PROTOCOL|EPROTO/i,
    "Check that etcd speaks TLS at this address; if not, write the endpoint with http://.",
  ],
  [/PEM|X509|BORINGSSL|KEY_VALUES_MISMATCH/i, "Check the PEM files of `tls`: they cannot be used."],
];

/** Nobody answered, or those who did could not serve. */
export function describeOutage(
  failures: readonly { readonly endpoint: string; readonly error: AppError }[],
  isAlive: boolean,
): AppError {
  const [first] = failures;
  const known = failures.find(({ error }) => error.context["status"] !== undefined);
  if (known !== undefined) return known.error;
  const each = failures.map(({ endpoint, error }) => `${endpoint}: ${error.message}`).join(" ");
  const message = isAlive
    ? `etcd runs and does not serve reads or writes in time. ${each}`
    : `No endpoint of etcd can be used. ${each}`;
  return new AppError(first?.error.kind ?? "unavailable", message, {
    guidance: isAlive
      ? QUORUM_GUIDANCE
      : "Check `endpoints` in the configuration, and that etcd runs and can be reached from here.",
    ...(first === undefined ? {} : { cause: first.error }),
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
