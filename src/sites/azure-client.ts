/**
 * The SDK of Azure Blob Storage, set up as a site needs it: every request sent once and by us
 * (http-exchange.ts), with the credentials that the configuration names.
 */
import type * as Sdk from "@azure/storage-blob";
import type { BlobServiceClient, StoragePipelineOptions } from "@azure/storage-blob";
import { Readable } from "node:stream";
import { AppError } from "../base/error.ts";
import { openAzureIdentity } from "./azure-identity.ts";
import type { HttpExchange } from "./http-exchange.ts";

/** Whose account it is, and by what right. */
export type AzureAccount = {
  readonly name: string;
  readonly account?: string;
  /**
   * `https://account.blob.core.windows.net` if left out; an emulator has the account as its path.
   */
  readonly endpoint?: string;
  readonly accountKey?: string;
  /** Instead of account, endpoint and key. */
  readonly connectionString?: string;
  /** A shared access signature: what stands behind the question mark. */
  readonly sasToken?: string;
  /** The identity of the machine, app or pod. */
  readonly identity?: "machine";
  /** Which identity, where the machine has several. */
  readonly clientId?: string;
};

type SdkClient = NonNullable<StoragePipelineOptions["httpClient"]>;
type SdkRequest = Parameters<SdkClient["sendRequest"]>[0];
type SdkAnswer = Awaited<ReturnType<SdkClient["sendRequest"]>>;

/** The service's client. Nothing is sent yet. */
export function openAzureService(
  sdk: typeof Sdk,
  account: AzureAccount,
  exchange: HttpExchange,
): BlobServiceClient {
  const options: StoragePipelineOptions = {
    httpClient: { sendRequest: async (request) => await send(exchange, request) },
    // The first try counts; retrying-site.ts does the rest.
    retryOptions: { maxTries: 1 },
  };
  const { connectionString, accountKey, sasToken, identity } = account;
  const given = [connectionString, accountKey, sasToken, identity];
  if (given.filter((one) => one !== undefined).length !== 1) {
    throw wrong(account, "needs one of accountKey, connectionString, sasToken and identity");
  }
  try {
    if (connectionString !== undefined) {
      return sdk.BlobServiceClient.fromConnectionString(connectionString, options);
    }
    const address = addressOf(account);
    if (identity !== undefined) {
      const tokens = openAzureIdentity(account, exchange);
      return new sdk.BlobServiceClient(address, tokens, options);
    }
    if (accountKey === undefined) {
      const query = (sasToken ?? "").replace(/^\?/, "");
      return new sdk.BlobServiceClient(
        `${address}?${query}`,
        new sdk.AnonymousCredential(),
        options,
      );
    }
    const { account: accountName } = account;
    if (accountName === undefined) throw wrong(account, "has an accountKey and no account");
    const credential = new sdk.StorageSharedKeyCredential(accountName, accountKey);
    return new sdk.BlobServiceClient(address, credential, options);
  } catch (thrown) {
    // What the SDK says of a malformed string may repeat it.
    throw thrown instanceof AppError ? thrown : wrong(account, "has malformed credentials");
  }
}

function addressOf(account: AzureAccount): string {
  if (account.endpoint !== undefined) return account.endpoint.replace(/\/+$/, "");
  if (account.account === undefined) throw wrong(account, "has neither account nor endpoint");
  return `https://${account.account}.blob.core.windows.net`;
}

function wrong({ name }: AzureAccount, what: string): AppError {
  return new AppError("config", `Site ${name} ${what}.`, {
    guidance:
      "Name account and accountKey, or a connectionString, or account (or endpoint) and sasToken, or " +
      "account and identity.",
    context: { site: name },
  });
}

/** One request of the SDK. Bodies are whole in both directions. */
async function send(exchange: HttpExchange, request: SdkRequest): Promise<SdkAnswer> {
  const { method, url, abortSignal } = request;
  const body: unknown = request.body;
  const answer = await exchange.send({
    method,
    url,
    headers: request.headers.toJson({ preserveCase: true }),
    ...(typeof body === "string" || body instanceof Uint8Array ? { body } : {}),
    ...(abortSignal instanceof AbortSignal ? { signal: abortSignal } : {}),
  });
  // The SDK exports no maker of headers, but a request can copy its own.
  const headers = request.headers.clone();
  for (const name of headers.headerNames()) headers.remove(name);
  for (const [name, value] of answer.headers) headers.set(name, value);
  const { status, bytes } = answer;
  if (isStreamed(request, status)) {
    const stream = Readable.from([bytes], { objectMode: false });
    return { request, status, headers, readableStreamBody: stream };
  }
  return { request, status, headers, bodyAsText: new TextDecoder().decode(bytes) };
}

/** What the SDK wants as a stream: objects and the answers to batches, and no errors. */
function isStreamed(request: SdkRequest, status: number): boolean {
  const statuses = request.streamResponseStatusCodes;
  return statuses !== undefined && (statuses.has(status) || statuses.has(Number.POSITIVE_INFINITY));
}
