/**
 * The keys of an encrypted repository on their way to another site: what was sealed under a session
 * key is of no use without its key object, so that comes first, as it is, and the entry that names
 * the packs names it too. Nobody here can open one.
 */
import { sha256Hex } from "../../base/hex.ts";
import { damagedError } from "../format/bytes.ts";
import { keyKey } from "../format/ids.ts";
import type { EntryBodies } from "../log/entry.ts";
import type { CopySide } from "./copy-side.ts";
import { callOf } from "./copy-side.ts";

type KeyRefs = NonNullable<EntryBodies["keep"]["keys"]>;

/** The keys that one copy has brought. */
export class CopiedKeys {
  readonly #from: CopySide;
  readonly #to: CopySide;
  readonly #signal: AbortSignal | undefined;
  readonly #brought = new Map<string, KeyRefs[number]>();

  constructor(from: CopySide, to: CopySide, signal: AbortSignal | undefined) {
    this.#from = from;
    this.#to = to;
    this.#signal = signal;
  }

  /** Brings the key objects of sessions that the target does not know. */
  async bring(sessions: Iterable<string>): Promise<void> {
    for (const id of new Set(sessions)) {
      const { repository } = this.#to;
      if (repository.state.keys.has(id) || this.#brought.has(id)) continue;
      const source = this.#from.repository;
      const stored = source.state.keys.get(id);
      const what = `The key object of session ${id} at ${source.site.location}`;
      if (stored === undefined) throw damagedError(what, "is not named by its log", { key: id });
      const bytes = await source.site.get(keyKey(id, stored.birth), callOf(this.#signal));
      if (bytes === undefined) throw damagedError(what, "is missing", { key: id });
      if (sha256Hex(bytes) !== stored.hash) {
        throw damagedError(what, "does not match the hash that its log has of it", { key: id });
      }
      const birth = repository.state.sequence;
      await repository.putObject(keyKey(id, birth), bytes, callOf(this.#signal));
      this.#brought.set(id, { ...stored, id, birth, recipients: [...stored.recipients] });
    }
  }

  /** What the next entry must name, to be spread into its body. */
  get named(): { readonly keys?: KeyRefs } {
    const { keys } = this.#to.repository.state;
    const fresh = [...this.#brought.values()].filter(({ id }) => !keys.has(id));
    return fresh.length === 0 ? {} : { keys: fresh };
  }
}
