/**
 * The session key of one operation of one node: drawn when it begins, wrapped for the recipients
 * into a key object before anything that is sealed under it is sent, and forgotten when it ends. From
 * then on only an identity opens what the operation has stored.
 */
import type { Random } from "../../base/doors.ts";
import type { SiteCall } from "../../sites/site.ts";
import { keyKey } from "../format/ids.ts";
import { KEY_SIZE_BYTES } from "../format/node-keys.ts";
import { sessionIdOf } from "../format/seal.ts";
import type { FrameSealing, Sealer, SessionKey } from "../format/seal.ts";
import { wrapFor } from "./age.ts";

/** A key object as log entries name it. */
export type KeyRef = {
  readonly id: string;
  readonly birth: number;
  readonly recipients: readonly string[];
};

/** What a session is made of. */
export type WriteSessionOptions = {
  readonly sealer: Sealer;
  readonly random: Random;
  readonly recipients: readonly string[];
  /** Stores the key object, and answers with its birth. */
  readonly put: (
    nameOf: (birth: number) => string,
    bytes: Uint8Array,
    call: SiteCall,
  ) => Promise<number>;
};

/** A session key in use. */
export class WriteSession implements Disposable {
  readonly session: SessionKey;
  readonly #options: WriteSessionOptions;
  #stored: Promise<KeyRef> | undefined;

  constructor(options: WriteSessionOptions) {
    const key = options.random.bytes(KEY_SIZE_BYTES);
    this.session = { id: sessionIdOf(key), key };
    this.#options = options;
  }

  get sealer(): Sealer {
    return this.#options.sealer;
  }

  /** For frames of contents and listings. */
  get sealing(): FrameSealing {
    return { sealer: this.#options.sealer, session: this.session };
  }

  /** For frames that every node must read: lists of packs and of chunks. */
  get nodeSealing(): FrameSealing {
    return { sealer: this.#options.sealer, session: undefined };
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
    const { recipients, put } = this.#options;
    const { id, key } = this.session;
    const wrapped = await wrapFor(recipients, key);
    const birth = await put((at) => keyKey(id, at), wrapped, call);
    return { id, birth, recipients };
  }
}
