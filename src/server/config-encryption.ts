/**
 * The `encryption` section of a configuration: its schema, and the keys that its files hold.
 */
import { z } from "zod";
import { secretField } from "../base/fields.ts";
import type { Secret } from "../base/secret.ts";
import { parseNodeKeys } from "../cas/format/node-keys.ts";
import { mustBeRecipients, parseIdentities, recipientSchema } from "../cas/keys/age.ts";
import type { NodeEncryption } from "../cluster/member-config.ts";

/** The section. */
export const encryptionSchema = z
  .strictObject({
    nodeKey: secretField().meta({
      description:
        "The node keys: {file: PATH} of the file that `astacus key node-init` made, the same on every " +
        "node. They find and deduplicate what is stored, and open none of it.",
    }),
    recipients: z
      .array(recipientSchema.meta({ expected: "a recipient of age: age1…" }))
      .min(1)
      .max(100)
      .optional()
      .transform((recipients = []) => recipients)
      .meta({
        description:
          "Who can restore: public keys of age, as `astacus key generate` shows them. Any one of them " +
          "is enough. A node that backs up needs at least one here.",
      }),
    identity: secretField()
      .optional()
      .meta({
        description:
          "{file: PATH} of an identity, only where restores are wanted without being given one: who has " +
          "it reads everything.",
      }),
  })
  .optional()
  .meta({
    description:
      "The repository is encrypted. It is so from `site init` on, or never; docs/encryption.md says " +
      "what that protects against.",
  });

/** The section as the configuration has it. */
export type EncryptionConfig = {
  readonly nodeKey: Secret;
  readonly recipients: readonly string[];
  readonly identity?: Secret | undefined;
};

/**
 * The keys of a configuration; undefined where its repository is plain. AppError `config` for what
 * is no recipient, and for files that hold no keys.
 */
export async function openEncryption(
  { encryption }: { readonly encryption?: EncryptionConfig | undefined },
  options: { readonly passphrase?: string | undefined } = {},
): Promise<NodeEncryption | undefined> {
  if (encryption === undefined) return undefined;
  const { nodeKey, recipients, identity } = encryption;
  await mustBeRecipients(recipients, "encryption.recipients");
  const keys = parseNodeKeys(nodeKey.reveal(), "encryption.nodeKey");
  if (identity === undefined) return { keys, recipients, identities: [] };
  const bytes = new TextEncoder().encode(identity.reveal());
  const where = "encryption.identity";
  return { keys, recipients, identities: await parseIdentities(bytes, where, options.passphrase) };
}
