/**
 * The age format (age-encryption.org) as far as repositories need it: session keys wrapped for
 * recipients, and files of identities, which may be under a passphrase. The library is loaded when
 * it is first needed: plain repositories never do.
 */
import { z } from "zod";
import { AppError } from "../../base/error.ts";

/** Somebody who can restore: an X25519 or hybrid key in age's spelling. */
export const recipientSchema = z
  .string()
  .max(4000)
  .regex(/^age1[0-9a-z]{20,}$/, "must be a recipient of age: age1…");

const ARMOR = "-----BEGIN AGE ENCRYPTED FILE-----";
const BINARY = "age-encryption.org/v1\n";
const IDENTITY = /^AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]+$/;

/**
 * Refuses what looks like a recipient and is none: a typing error that its checksum shows. AppError
 * `config`; `where` names the setting.
 */
export async function mustBeRecipients(
  recipients: readonly string[],
  where: string,
): Promise<void> {
  const { Encrypter } = await import("age-encryption");
  for (const recipient of recipients) {
    try {
      new Encrypter().addRecipient(recipient);
    } catch (thrown) {
      throw new AppError("config", `${where}: ${recipient} is not a recipient of age.`, {
        guidance:
          "Its checksum does not fit: a character is wrong or lost. Copy it again from where " +
          "`astacus key generate` has shown it.",
        context: { recipient },
        cause: thrown,
      });
    }
  }
}

/** Wraps bytes for recipients. */
export async function wrapFor(
  recipients: readonly string[],
  bytes: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  const { Encrypter } = await import("age-encryption");
  const encrypter = new Encrypter();
  for (const recipient of recipients) encrypter.addRecipient(recipient);
  return new Uint8Array(await encrypter.encrypt(bytes));
}

/** What was wrapped, if one of the identities fits; undefined if none does, or the bytes are damaged. */
export async function unwrapWith(
  identities: readonly string[],
  wrapped: Uint8Array,
): Promise<Uint8Array | undefined> {
  if (identities.length === 0) return undefined;
  const { Decrypter } = await import("age-encryption");
  const decrypter = new Decrypter();
  for (const identity of identities) decrypter.addIdentity(identity);
  try {
    return await decrypter.decrypt(wrapped);
  } catch {
    return undefined;
  }
}

/** A new identity, and the recipient that it belongs to. */
export async function drawIdentity(): Promise<{
  readonly identity: string;
  readonly recipient: string;
}> {
  const { generateX25519Identity } = await import("age-encryption");
  const identity = await generateX25519Identity();
  return { identity, recipient: await recipientOf(identity) };
}

/** The recipient that an identity belongs to. */
export async function recipientOf(identity: string): Promise<string> {
  const { identityToRecipient } = await import("age-encryption");
  return await identityToRecipient(identity);
}

/** The text of an identity file, under a passphrase if one is given. */
export async function formatIdentity(
  made: { readonly identity: string; readonly recipient: string },
  passphrase?: string,
): Promise<string> {
  const text = `# public key: ${made.recipient}\n${made.identity}\n`;
  if (passphrase === undefined) return text;
  const { armor, Encrypter } = await import("age-encryption");
  const encrypter = new Encrypter();
  encrypter.setPassphrase(passphrase);
  return armor.encode(await encrypter.encrypt(text));
}

/** True if the bytes are a file of identities under a passphrase. */
export function needsPassphrase(bytes: Uint8Array): boolean {
  const text = Buffer.from(bytes.subarray(0, ARMOR.length)).toString("latin1");
  return text.startsWith(BINARY) || text.startsWith(ARMOR);
}

/** The identities in a file as `age-keygen` writes it; `where` names it in messages. */
export async function parseIdentities(
  bytes: Uint8Array,
  where: string,
  passphrase?: string,
): Promise<string[]> {
  const text = needsPassphrase(bytes)
    ? await openIdentities(bytes, where, passphrase)
    : new TextDecoder().decode(bytes);
  const lines = text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  if (lines.length > 0 && lines.every((line) => IDENTITY.test(line))) return lines;
  throw new AppError("config", `${where} is not a file of age identities.`, {
    guidance:
      "It must have lines that begin with AGE-SECRET-KEY-1. `astacus key generate` makes one.",
    context: { path: where },
  });
}

async function openIdentities(
  bytes: Uint8Array,
  where: string,
  passphrase: string | undefined,
): Promise<string> {
  if (passphrase === undefined) {
    throw new AppError("config", `${where} is under a passphrase.`, {
      guidance: "Give it in the environment variable ASTACUS_PASSPHRASE.",
      context: { path: where, reason: "passphrase" },
    });
  }
  const { armor, Decrypter } = await import("age-encryption");
  const decrypter = new Decrypter();
  decrypter.addPassphrase(passphrase);
  try {
    const isArmored = Buffer.from(bytes).toString("latin1").startsWith(ARMOR);
    const binary = isArmored ? armor.decode(new TextDecoder().decode(bytes)) : bytes;
    return await decrypter.decrypt(binary, "text");
  } catch (thrown) {
    throw new AppError("permission", `The passphrase does not open ${where}.`, {
      guidance: "Try again with the passphrase that the file was made with.",
      context: { path: where },
      cause: thrown,
    });
  }
}
