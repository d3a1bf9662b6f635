/**
 * Copies that Azure makes by itself within one account: Copy Blob From URL, which answers when the copy
 * is whole, with `If-None-Match: *`. The service reads the source by an address that we sign for an
 * hour, by the token of the source's own configuration, or by this machine's identity.
 */
import type * as Sdk from "@azure/storage-blob";
import type { BlobServiceClient, BlockBlobClient, ContainerClient } from "@azure/storage-blob";
import { realClock } from "../base/clock.ts";
import { AppError } from "../base/error.ts";
import type { AzureAccount } from "./azure-client.ts";
import { assertObjectKey } from "./object-key.ts";
import { impossibleCopy } from "./store-error.ts";
import type { CopyOutcome, SiteCall, SiteCopying } from "./site.ts";

/** What a site lends to its copies. */
export type AzureCopyParts = {
  readonly sdk: typeof Sdk;
  readonly account: AzureAccount;
  readonly service: BlobServiceClient;
  readonly container: ContainerClient;
  /** Empty, or with a slash at its end. */
  readonly prefix: string;
  readonly tier: string | undefined;
  /** Whether an error of the SDK says that the key is taken. */
  readonly isTaken: (thrown: unknown) => boolean;
  /** One request. */
  readonly call: <T>(
    key: string,
    options: SiteCall,
    work: (signal: AbortSignal | undefined) => Promise<T>,
  ) => Promise<T>;
};

/** What tells a copy, in its metadata; our SHA-256 is left behind, since nobody has checked it. */
export const AZURE_COPY_MARK = "astacuscopied";

const SCOPE = "https://storage.azure.com/.default";
const READ_MS = 3_600_000;

/** Copies to a site from others of its account. */
export function azureCopying(parts: AzureCopyParts): SiteCopying {
  const { account, service, container, prefix } = parts;
  const address = service.url.replace(/\?.*$/s, "");
  // A signed address is enough by itself; an identity must be the same on both sides.
  const right = account.identity === undefined ? "signed" : ["identity", account.clientId ?? ""];
  const store = JSON.stringify(["azure", address, right]);
  const sourceOf = (key: string): BlockBlobClient => container.getBlockBlobClient(prefix + key);
  return {
    place: {
      store,
      root: `${container.containerName}/${prefix}`,
      addressOf: (key) => readableAddress(parts, sourceOf(key)),
    },
    ways: [{ name: "Copy Blob From URL", requests: 1 }],
    reaches: (source) => source.store === store,
    copyFrom: async (source, fromKey, toKey, call = {}) => {
      assertObjectKey(fromKey);
      assertObjectKey(toKey);
      if (source.store !== store) return "impossible";
      try {
        return await copyBlob(parts, source.addressOf(fromKey), toKey, call);
      } catch (thrown) {
        const { code, status } = thrown instanceof AppError ? thrown.context : {};
        const isSources = code === "CannotVerifyCopySource";
        if (code === "BlobNotFound" || (isSources && status === 404)) return "absent";
        // The service does not reach the source, or not by this address.
        return isSources ? "impossible" : impossibleCopy(thrown);
      }
    },
  };
}

async function copyBlob(
  { account, service, container, prefix, tier, call, isTaken }: AzureCopyParts,
  from: string,
  toKey: string,
  options: SiteCall,
): Promise<CopyOutcome> {
  return await call(toKey, options, async (signal) => {
    try {
      const { copyStatus } = await container
        .getBlockBlobClient(prefix + toKey)
        .syncCopyFromURL(from, {
          conditions: { ifNoneMatch: "*" },
          metadata: { [AZURE_COPY_MARK]: "1" },
          ...(tier === undefined ? {} : { tier }),
          ...(account.identity === undefined ? {} : await bearerOf(service)),
          ...(signal === undefined ? {} : { abortSignal: signal }),
        });
      if (copyStatus === "success") return "created";
      throw new AppError("unavailable", `The copy of ${toKey} is not complete.`);
    } catch (thrown) {
      if (isTaken(thrown)) return "exists";
      throw thrown;
    }
  });
}

/** By which the service itself can read a blob. */
function readableAddress({ sdk, service }: AzureCopyParts, blob: BlockBlobClient): string {
  const { credential } = service;
  // A token of the configuration is part of the address; an identity goes in a header.
  if (!(credential instanceof sdk.StorageSharedKeyCredential)) return blob.url;
  const signature = sdk.generateBlobSASQueryParameters(
    {
      containerName: blob.containerName,
      blobName: blob.name,
      permissions: sdk.BlobSASPermissions.parse("r"),
      expiresOn: new Date(realClock.now() + READ_MS),
    },
    credential,
  );
  return `${blob.url}?${signature.toString()}`;
}

async function bearerOf(
  service: BlobServiceClient,
): Promise<{ sourceAuthorization?: { scheme: string; value: string } }> {
  const { credential } = service;
  if (!("getToken" in credential)) return {};
  const token = await credential.getToken(SCOPE);
  return token === null ? {} : { sourceAuthorization: { scheme: "Bearer", value: token.token } };
}
