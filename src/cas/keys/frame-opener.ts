/**
 * Opens what a repository has sealed: with the node keys what every node may read, with an identity
 * also what was stored. Session keys are read from their key objects when they are first needed, and
 * are in memory for as long as the opener is. Chunks are checked here too, since their ids are keyed.
 */
import { AppError } from "../../base/error.ts";
import { sha256Hex, toHex } from "../../base/hex.ts";
import type { Site, SiteCall } from "../../sites/site.ts";
import { damagedError } from "../format/bytes.ts";
import { keyKey } from "../format/ids.ts";
import type { ManifestOpener } from "../format/manifest.ts";
import { PLAIN_SEALER, sessionIdOf } from "../format/seal.ts";
import type { FrameOrigin, FrameSeal, Sealer, SessionKey, StoredKey } from "../format/seal.ts";
import { unwrapWith } from "./age.ts";

/** What an opener is made of. */
export type FrameOpenerOptions = {
  readonly sealer: Sealer;
  readonly site: Pick<Site, "get">;
  /** The key objects that the log names now. */
  readonly keys: () => ReadonlyMap<string, StoredKey>;
  /** Of age, as its files have them; none opens only what nodes may read. */
  readonly identities?: readonly string[];
};

/** Frame keys of so many packs are kept. */
const FRAME_KEY_COUNT_MAX = 4096;

/**
 * What opens frames and manifests.
 *
 * @example
 * const opener = repository.openerFor(identities);
 * const raw = decodeFrame(stored, row, what, await opener.opening(row.seal));
 */
export class FrameOpener implements ManifestOpener {
  readonly sealer: Sealer;
  readonly #options: FrameOpenerOptions;
  readonly #identities: readonly string[];
  readonly #sessions = new Map<string, Promise<SessionKey>>();
  /** By origin as directories name it. */
  readonly #frameKeys = new Map<string, Uint8Array>();

  constructor(options: FrameOpenerOptions) {
    this.sealer = options.sealer;
    this.#options = options;
    this.#identities = options.identities ?? [];
  }

  /** False if frames of this origin, or without one all that was stored, cannot be opened here. */
  canOpen(origin?: FrameOrigin): boolean {
    if (this.sealer.isPlain || this.#identities.length > 0) return true;
    return origin !== undefined && origin.session === undefined;
  }

  /**
   * What `decodeFrame` needs for a frame; undefined for one that is not sealed. A promise only where
   * the site must be asked.
   */
  opening(
    seal: FrameSeal | undefined,
    call?: SiteCall,
  ): Uint8Array | undefined | Promise<Uint8Array> {
    if (seal === undefined) return undefined;
    const { origin } = seal;
    const name = `${origin.session ?? ""}/${origin.kind}/${toHex(origin.salt)}`;
    const known = this.#frameKeys.get(name);
    if (known !== undefined) return this.sealer.frameOpening(seal, known);
    if (origin.session === undefined) return this.#open(seal, name, undefined);
    return this.sessionKey(origin.session, call).then(({ key }) => this.#open(seal, name, key));
  }

  /** A session key; AppError `permission` if no identity fits, `damaged` if its object is lost. */
  async sessionKey(id: string, call: SiteCall = {}): Promise<SessionKey> {
    const known = this.#sessions.get(id);
    if (known !== undefined) return await known;
    const reading = this.#readKey(id, call);
    this.#sessions.set(id, reading);
    // A failure is of the moment: who asks next asks the site again.
    reading.catch(() => this.#sessions.delete(id));
    return await reading;
  }

  #open(seal: FrameSeal, name: string, session: Uint8Array | undefined): Uint8Array {
    const key = this.sealer.frameKey(seal.origin, session);
    for (const oldest of this.#frameKeys.keys()) {
      if (this.#frameKeys.size < FRAME_KEY_COUNT_MAX) break;
      this.#frameKeys.delete(oldest);
    }
    this.#frameKeys.set(name, key);
    return this.sealer.frameOpening(seal, key);
  }

  async #readKey(id: string, call: SiteCall): Promise<SessionKey> {
    const stored = this.#options.keys().get(id);
    if (this.#identities.length === 0) throw noIdentity(stored);
    if (stored === undefined) {
      throw damagedError(`Session key ${id}`, "is named by no entry of the log", { key: id });
    }
    const name = keyKey(id, stored.birth);
    const wrapped = await this.#options.site.get(name, call);
    if (wrapped === undefined) throw damagedError(name, "is missing", { key: name });
    if (sha256Hex(wrapped) !== stored.hash) {
      throw damagedError(name, "does not match the hash that the log has of it", { key: name });
    }
    const key = await unwrapWith(this.#identities, wrapped);
    if (key === undefined) throw wrongIdentity(name, stored);
    if (sessionIdOf(key) !== id) throw damagedError(name, "holds another key than its name says");
    return { id, key };
  }
}

/** The opener of plain repositories. */
export const PLAIN_OPENER = new FrameOpener({
  sealer: PLAIN_SEALER,
  site: { get: async () => undefined },
  keys: () => new Map(),
});

/** True if something could not be read only for want of an identity that fits. */
export function isSealedFor(error: unknown): error is AppError {
  return error instanceof AppError && error.context["reason"] === "identity";
}

function noIdentity(stored: StoredKey | undefined): AppError {
  return new AppError("permission", "This is encrypted, and no identity was given to open it.", {
    guidance: `Give the identity file of ${namesOf(stored)} with --identity FILE, or configure encryption.identity where restores are wanted.`,
    context: { reason: "identity", recipients: namesOf(stored) },
  });
}

function wrongIdentity(name: string, stored: StoredKey): AppError {
  return new AppError("permission", `No identity that was given opens ${name}.`, {
    guidance: `It was wrapped for ${namesOf(stored)}: give the identity file of one of them.`,
    context: { reason: "identity", key: name, recipients: namesOf(stored) },
  });
}

function namesOf(stored: StoredKey | undefined): string {
  const names = stored?.recipients ?? [];
  return names.length === 0 ? "a recipient of this repository" : names.join(" or ");
}
