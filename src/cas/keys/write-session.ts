/**
 * The session key of one operation of one node: drawn when it begins, wrapped for the recipients
 * into a key object before anything that is sealed under it is sent, and forgotten when it ends. From
 * then on only an identity opens what the operation has stored.
 */
import type { Random } from "../../base/doors.ts";
import { sha256Hex } from "../../base/hex.ts";
import type { SiteCall } from "../../sites/site.ts";
import { keyKey } from "../format/ids.ts";
import { KEY_SIZE_BYTES } from "../format/node-keys.ts";
import { sessionIdOf } from "../format/seal.ts";
import type { FrameSealing, Sealer, SessionKey } from "../format/seal.ts";
import { wrapFor } from "./age.ts";
import { mustHaveRecipients } from "./repository-encryption.ts";
import type { RepositoryEncryption } from "./repository-encryption.ts";

/** A key object as log entries name it. */
export type KeyRef = {
  readonly id: string;
  readonly birth: number;
  /** Of its bytes. */
  readonly hash: string;
  readonly recipients: readonly string[];
};

/** Where a session stores its key. */
export type SessionHost = {
  readonly sealer: Sealer;
  readonly state: { readonly sequence: number };
  putObject(
    key: string,
    bytes: Uint8Array,
    options?: SiteCall & { readonly sha256?: string },
  ): Promise<void>;
};

/** A session key in use. */
export class WriteSession implements Disposable {
  readonly session: SessionKey;
  readonly #host: SessionHost;
  readonly #recipients: readonly string[];
  #stored: Promise<KeyRef> | undefined;

  constructor(host: SessionHost, encryption: RepositoryEncryption, random: Random) {
    this.#host = host;
    this.#recipients = mustHaveRecipients(encryption);
    const key = random.bytes(KEY_SIZE_BYTES);
    this.session = { id: sessionIdOf(key), key };
  }

  get sealer(): Sealer {
    return this.#host.sealer;
  }

  /** For frames of contents and listings. */
  get sealing(): FrameSealing {
    return { sealer: this.sealer, session: this.session };
  }

  /** For frames that every node must read: lists of packs and of chunks. */
  get nodeSealing(): FrameSealing {
    return { sealer: this.sealer, session: undefined };
  }

  /** The key object is in the site when this returns; it is sent once. */
  async store(call: SiteCall = {}): Promise<KeyRef> {
    this.#stored ??= this.#send(call);
    try {
      return await this.#stored;
    } catch (thrown) {
      this.#stored = undefined;
      throw thrown;
    }
  }

  [Symbol.dispose](): void {
    this.session.key.fill(0);
  }

  async #send(call: SiteCall): Promise<KeyRef> {
    const { id, key } = this.session;
    const recipients = this.#recipients;
    const wrapped = await wrapFor(recipients, key);
    const birth = this.#host.state.sequence;
    const hash = sha256Hex(wrapped);
    await this.#host.putObject(keyKey(id, birth), wrapped, { ...call, sha256: hash });
    return { id, birth, hash, recipients };
  }
}
