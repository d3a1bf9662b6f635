/**
 * What a node brings to open an encrypted repository, and the refusal of what does not fit: a plain
 * repository is never written to by who believes it encrypted, nor the other way round.
 */
import { AppError } from "../../base/error.ts";
import type { Site } from "../../sites/site.ts";
import type { RepositoryHeader } from "../format/header.ts";
import { fingerprintOf } from "../format/node-keys.ts";
import type { NodeKeys } from "../format/node-keys.ts";
import { isSealedPack } from "../format/pack.ts";
import { isSealed, PLAIN_SEALER, Sealer } from "../format/seal.ts";

/** The keys of this node, and for whom it wraps what it stores. */
export type RepositoryEncryption = {
  readonly keys: NodeKeys;
  /** Of age; who only reads needs none. */
  readonly recipients: readonly string[];
};

/** What the header of a new repository says of encryption. */
export function encryptionHeader(keys: NodeKeys | undefined): RepositoryHeader["encryption"] {
  return keys === undefined ? null : { scheme: "astacus-seal-1", nodeKeys: fingerprintOf(keys) };
}

/** The sealer of a repository; AppError `refused` if the keys are not those that it needs. */
export function sealerFor(
  header: RepositoryHeader,
  encryption: RepositoryEncryption | undefined,
  site: Pick<Site, "name" | "location">,
): Sealer {
  const { encryption: wanted, repository } = header;
  if (wanted === null && encryption === undefined) return PLAIN_SEALER;
  const context = { site: site.name, location: site.location, reason: "encryption" };
  if (encryption === undefined) {
    throw new AppError("refused", `The repository at ${site.location} is encrypted.`, {
      guidance:
        "Copy the node key file from another node, and name it in the configuration: " +
        "encryption.nodeKey.file.",
      context,
    });
  }
  if (wanted === null) {
    throw new AppError("refused", `The repository at ${site.location} is plain.`, {
      guidance:
        "Nothing was written. A plain repository cannot become an encrypted one, as all ids differ: " +
        "take `encryption` out of the configuration, or make a new repository at another place with " +
        "`astacus site init`, back up there, and keep the old one for as long as its backups count.",
      context,
    });
  }
  if (fingerprintOf(encryption.keys) !== wanted.nodeKeys) {
    throw new AppError(
      "refused",
      `The node keys are not those of the repository at ${site.location}.`,
      {
        guidance:
          `Nothing was read. The file whose fingerprint is ${wanted.nodeKeys} is needed; it lies on ` +
          "every other node of this repository.",
        context: { ...context, wanted: wanted.nodeKeys, found: fingerprintOf(encryption.keys) },
      },
    );
  }
  return new Sealer({ ...encryption.keys, repository });
}

/** The recipients; AppError `config` if there are none, since nobody could ever restore. */
export function mustHaveRecipients({ recipients }: RepositoryEncryption): readonly string[] {
  if (recipients.length > 0) return recipients;
  throw new AppError("config", "The configuration names no recipient who could restore a backup.", {
    guidance:
      "Make an identity with `astacus key generate`, keep it away from the nodes, and name its " +
      "recipient (age1…) in encryption.recipients.",
  });
}

/** Refuses to send in plain what an encrypted repository must seal: a defect of ours, never the world's. */
export function mustBeSealed(sealer: Sealer, key: string, bytes: Uint8Array): void {
  if (sealer.isPlain) return;
  const isPack = key.startsWith("pack/");
  const isObject = /^(?:index|manifest|checkpoint)\//.test(key);
  if ((isPack && !isSealedPack(bytes)) || (isObject && !isSealed(bytes))) {
    throw new AppError("internal", `${key} was not sealed, and was not sent.`);
  }
}
