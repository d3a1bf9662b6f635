/**
 * Tokens for Azure Blob Storage without a secret in the configuration: from the identity of a pod
 * (workload identity), of an app or container (its identity endpoint), or of a virtual machine (its
 * metadata server), in this order, by what the environment names. The vendor's library for it is
 * larger than all else of this site together; these are three requests that its documentation
 * gives.
 */
import { readFile } from "node:fs/promises";
import { AppError } from "../base/error.ts";
import { HttpExchange, type HttpRequest } from "./http-exchange.ts";
import { isNetworkCode } from "./store-error.ts";

/** Whose identity. */
export type AzureIdentity = {
  readonly name: string;
  /** Which one, where several are assigned to the machine. */
  readonly clientId?: string;
};

/** What the SDK asks for a token. */
export type AzureTokens = {
  getToken(
    scopes: string | string[],
    options?: { readonly abortSignal?: unknown },
  ): Promise<{ readonly token: string; readonly expiresOnTimestamp: number }>;
};

type Environment = Readonly<Record<string, string | undefined>>;
type Exchange = Pick<HttpExchange, "send">;
type Token = { readonly token: string; readonly expiresOnTimestamp: number };

const RESOURCE = "https://storage.azure.com/";
const METADATA_HOST = "http://169.254.169.254";
const AUTHORITY = "https://login.microsoftonline.com/";
/** The metadata server is next door: who does not answer at once is not there. */
const METADATA_TIMEOUT_MS = 10_000;
/** A token is renewed so long before its end. */
const RENEWAL_MS = 300_000;

/**
 * Nothing is sent before the first token is wanted. `exchange` goes the way of the site's requests.
 */
export function openAzureIdentity(
  identity: AzureIdentity,
  exchange: Exchange,
  environment: Environment = process.env,
): AzureTokens {
  let kept: Token | undefined;
  let coming: Promise<Token> | undefined;
  const fetchToken = async (): Promise<Token> => {
    try {
      kept = await requestToken(identity, exchange, environment);
      return kept;
    } catch (thrown) {
      throw thrown instanceof AppError ? thrown : noToken(identity.name, thrown);
    } finally {
      coming = undefined;
    }
  };
  return {
    getToken: async () => {
      // A batch asks for the token of each of its parts.
      if (kept !== undefined && kept.expiresOnTimestamp - RENEWAL_MS > Date.now()) return kept;
      coming ??= fetchToken();
      return await coming;
    },
  };
}

async function requestToken(
  identity: AzureIdentity,
  exchange: Exchange,
  environment: Environment,
): Promise<Token> {
  const near = new HttpExchange({ timeoutMs: METADATA_TIMEOUT_MS });
  const { AZURE_FEDERATED_TOKEN_FILE: tokenFile, IDENTITY_ENDPOINT: endpoint } = environment;
  if (tokenFile !== undefined) {
    const request = await workloadRequest(identity, tokenFile, environment);
    return await answered(identity.name, exchange, request);
  }
  const chosen = identity.clientId === undefined ? {} : { client_id: identity.clientId };
  if (endpoint !== undefined) {
    const query = { resource: RESOURCE, "api-version": "2019-08-01", ...chosen };
    return await answered(identity.name, near, {
      method: "GET",
      url: `${endpoint}?${new URLSearchParams(query).toString()}`,
      headers: { "x-identity-header": environment["IDENTITY_HEADER"] ?? "" },
    });
  }
  const query = { resource: RESOURCE, "api-version": "2018-02-01", ...chosen };
  const host = environment["AZURE_POD_IDENTITY_AUTHORITY_HOST"] ?? METADATA_HOST;
  return await answered(identity.name, near, {
    method: "GET",
    url: `${host}/metadata/identity/oauth2/token?${new URLSearchParams(query).toString()}`,
    headers: { metadata: "true" },
  });
}

/**
 * The pod's own token, which is read anew each time since it is renewed, for one of the storage.
 */
async function workloadRequest(
  identity: AzureIdentity,
  tokenFile: string,
  environment: Environment,
): Promise<HttpRequest> {
  const { AZURE_TENANT_ID: tenant = "", AZURE_AUTHORITY_HOST: authority = AUTHORITY } = environment;
  const form = {
    grant_type: "client_credentials",
    scope: `${RESOURCE}.default`,
    client_id: identity.clientId ?? environment["AZURE_CLIENT_ID"] ?? "",
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion: (await readFile(tokenFile, "utf8")).trim(),
  };
  return {
    method: "POST",
    url: `${authority.replace(/\/+$/, "")}/${encodeURIComponent(tenant)}/oauth2/v2.0/token`,
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: new URLSearchParams(form).toString(),
  };
}

async function answered(site: string, exchange: Exchange, request: HttpRequest): Promise<Token> {
  const { status, bytes } = await exchange.send(request);
  const text = new TextDecoder().decode(bytes);
  const body = status === 200 ? parseAnswer(text) : undefined;
  if (body === undefined) {
    const isPassing = status >= 500 || status === 429 || status === 410;
    throw refusal(site, isPassing, `${status} ${text.slice(0, 300)}`);
  }
  return body;
}

/**
 * Of three shapes: how long it holds, or until when in seconds since 1970, as a number or as text.
 */
function parseAnswer(text: string): Token | undefined {
  try {
    const answer = JSON.parse(text) as Readonly<Record<string, unknown>>;
    const { access_token: token } = answer;
    const untilMs = Number(answer["expires_on"]) * 1000;
    const sinceNowMs = Date.now() + Number(answer["expires_in"]) * 1000;
    const expiresOnTimestamp = Number.isFinite(untilMs) ? untilMs : sinceNowMs;
    if (typeof token !== "string" || !Number.isFinite(expiresOnTimestamp)) return undefined;
    return { token, expiresOnTimestamp };
  } catch {
    return undefined;
  }
}

function noToken(site: string, thrown: unknown): AppError {
  const code = thrown instanceof Error && "code" in thrown ? String(thrown.code) : "";
  return refusal(site, isNetworkCode(code), thrown instanceof Error ? thrown.message : code);
}

function refusal(site: string, isPassing: boolean, words: string): AppError {
  return new AppError(
    isPassing ? "unavailable" : "permission",
    `No token for site ${site}: ${words}`,
    {
      guidance:
        "Assign an identity to this machine or pod, and give it the role Storage Blob Data Contributor.",
      context: { site },
    },
  );
}
