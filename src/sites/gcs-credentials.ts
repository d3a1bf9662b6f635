/**
 * Tokens for Google Cloud Storage, by Google's own library: from a service account's key, for a
 * federated identity, or from where Google's tools look by themselves
 * (GOOGLE_APPLICATION_CREDENTIALS, gcloud's files, the machine's role). Its requests go the way of
 * the site's own, but those to the machine's metadata server, which is next door.
 */
import type { AuthClient, IdentityPoolClientOptions } from "google-auth-library";
import { readFile } from "node:fs/promises";
import { AppError } from "../base/error.ts";
import type { HttpExchange } from "./http-exchange.ts";
import { isNetworkCode } from "./store-error.ts";

/** By what right. */
export type GcsAccount = {
  readonly name: string;
  /** A service account's key or a federated identity, as the JSON text that Google hands out. */
  readonly credentials?: string;
  /** The same, as a path. */
  readonly credentialsFile?: string;
  /** Sends no credentials: for emulators. */
  readonly anonymous?: boolean;
};

/** Headers that prove who asks; the library keeps the token until it must be renewed. */
export type GcsCredentials = (url: string) => Promise<Readonly<Record<string, string>>>;

const SCOPE = "https://www.googleapis.com/auth/devstorage.read_write";

/** Nothing is sent before the first request. */
export async function openGcsCredentials(
  account: GcsAccount,
  exchange: Pick<HttpExchange, "send">,
): Promise<GcsCredentials> {
  const { credentials, credentialsFile, anonymous = false } = account;
  const named = [credentials, credentialsFile].filter((one) => one !== undefined).length;
  if (named + Number(anonymous) > 1) throw wrong(account.name, "has more than one of them");
  if (anonymous) return async () => ({});
  const text =
    credentialsFile === undefined ? credentials : await readKey(account.name, credentialsFile);
  const key = text === undefined ? undefined : parseKey(account.name, text);
  const client = await clientOf(account.name, key, exchange);
  return async (url) => {
    try {
      return Object.fromEntries((await (await client()).getRequestHeaders(url)).entries());
    } catch (thrown) {
      throw thrown instanceof AppError ? thrown : tokenError(account.name, thrown);
    }
  };
}

/** The library's client for a kind of credentials; for none, whatever Google's tools would use. */
async function clientOf(
  site: string,
  key: Readonly<Record<string, unknown>> | undefined,
  exchange: Pick<HttpExchange, "send">,
): Promise<() => Promise<Pick<AuthClient, "getRequestHeaders">>> {
  // 100 ms of CPU and 20 MiB: an emulator's user does not pay for it.
  const library = await import("google-auth-library");
  const transporterOptions = {
    fetchImplementation: async (input: string | URL | Request, init?: RequestInit) =>
      await send(exchange, input, init),
    retryConfig: { retry: 0, noResponseRetries: 0 },
  };
  if (key === undefined) {
    const auth = new library.GoogleAuth({ scopes: [SCOPE], clientOptions: { transporterOptions } });
    return async () => await auth.getClient();
  }
  const { type, client_email: email, private_key: privateKey } = key;
  if (type === "service_account" && typeof email === "string" && typeof privateKey === "string") {
    const client = new library.JWT({ email, key: privateKey, scopes: [SCOPE], transporterOptions });
    return async () => client;
  }
  if (type === "external_account") {
    const options = { ...key, scopes: [SCOPE], transporterOptions };
    const client = new library.IdentityPoolClient(options as IdentityPoolClientOptions);
    return async () => client;
  }
  throw wrong(site, "are neither a service account's key nor those of a federated identity");
}

/** The library's requests, sent by ours: one deadline, one proxy, one list of authorities. */
async function send(
  exchange: Pick<HttpExchange, "send">,
  input: string | URL | Request,
  init: RequestInit | undefined,
): Promise<Response> {
  const request =
    input instanceof Request ? new Request(input, init) : new Request(String(input), init);
  const body = await request.bytes();
  const { status, headers, bytes } = await exchange.send({
    method: request.method,
    url: request.url,
    headers: Object.fromEntries(request.headers.entries()),
    ...(body.length === 0 ? {} : { body }),
  });
  return new Response(bytes, { status, headers });
}

async function readKey(site: string, path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (thrown) {
    throw new AppError("config", `The credentialsFile ${path} of site ${site} cannot be read.`, {
      guidance: "Name the JSON file of a service account's key.",
      context: { site },
      cause: thrown,
    });
  }
}

function parseKey(site: string, text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return { ...value };
  } catch {
    // What a parser says of a secret may repeat it.
  }
  throw wrong(site, "are no JSON object");
}

function wrong(site: string, what: string): AppError {
  return new AppError("config", `The credentials of site ${site}: ${what}.`, {
    guidance:
      "Set one of credentials, credentialsFile and anonymous, or none to use the machine's.",
    context: { site },
  });
}

/** No token: the cause decides whether it may come later. */
function tokenError(site: string, thrown: unknown): AppError {
  const status = thrown instanceof Error && "status" in thrown ? Number(thrown.status) : undefined;
  const code = thrown instanceof Error && "code" in thrown ? String(thrown.code) : "";
  const isPassing =
    (status !== undefined && (status >= 500 || status === 429)) || isNetworkCode(code);
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const words = (message.split("\n")[0] ?? "").slice(0, 300);
  return new AppError(
    isPassing ? "unavailable" : "permission",
    `No token for site ${site}: ${words}`,
    {
      guidance:
        "Check the service account's key and the clock; without one, that this machine has a role " +
        "or GOOGLE_APPLICATION_CREDENTIALS names a file.",
      context: { site },
    },
  );
}
