/**
 * What each kind of entry does to the state, and what makes it void: the full table of kinds. A rule
 * looks at the entry's own bytes and at the state, and at nothing else (replay.ts says why).
 */
import type {
  BackupBody,
  EntryBodies,
  EntryDraft,
  EntryKind,
  EntryOf,
  ForgetRef,
} from "./entry.ts";
import type { BackupRecord, CurrentSegment, Deleted, Keep, Move, Pin } from "./state.ts";
import { areBetterRoles, hasUndone } from "./state.ts";
import type { StoredKey } from "../format/seal.ts";
import type { RepositoryState, Retired } from "./state.ts";

type Tables = {
  backups: Map<string, BackupRecord>;
  everIds: Set<string>;
  buried: Map<string, Readonly<ForgetRef>>;
  pins: Map<string, Pin>;
  keeps: Map<string, Keep>;
  segments: Map<string, CurrentSegment>;
  retired: Map<string, Retired>;
  deleted: Map<string, Deleted>;
  moves: Map<string, readonly Move[]>;
  repairs: Map<string, number>;
  keys: Map<string, StoredKey>;
};

/** A state that is being written; a table is copied before its first change. */
export class StateDraft {
  #state: RepositoryState;
  readonly #tables: Partial<Tables> = {};

  constructor(state: RepositoryState) {
    this.#state = state;
  }

  get state(): RepositoryState {
    return this.#state;
  }

  set(fields: Partial<RepositoryState>): void {
    this.#state = { ...this.#state, ...fields };
  }

  /** A table to write to. */
  edit<Name extends keyof Tables>(name: Name): Tables[Name] {
    const own = this.#tables[name];
    if (own !== undefined) return own;
    const copy = copyTable(this.#state[name]) as Tables[Name];
    this.#tables[name] = copy;
    this.set({ [name]: copy });
    return copy;
  }
}

function copyTable(table: ReadonlyMap<string, unknown> | ReadonlySet<string>): unknown {
  return table instanceof Set ? new Set(table) : new Map(table as ReadonlyMap<string, unknown>);
}

/** Applies an entry of a known kind to a draft; returns why it is void, if it is. */
export function act<Kind extends EntryKind>(
  draft: StateDraft,
  entry: EntryOf<Kind>,
): string | undefined {
  const rule: Rule<Kind> = RULES[entry.kind];
  const why = birthsFault(draft.state, entry) ?? rule.voidBecause?.(draft.state, entry.body, entry);
  if (why !== undefined) return why;
  rule.effect(draft, entry.body, entry);
  const { checkpoint } = entry;
  const isNewer = (checkpoint?.sequence ?? 0) > (draft.state.checkpoint?.sequence ?? 0);
  if (checkpoint !== null && isNewer && checkpoint.sequence < entry.sequence) {
    draft.set({ checkpoint });
  }
}

/** Why whatever comes next is void: the log has ended. */
export function endFault({ closed }: RepositoryState): string | undefined {
  return closed === undefined ? undefined : `entry ${closed.sequence} closed the log`;
}

/** What an entry with this body would name for the first time: all births that the body shows. */
export function newBirths(
  state: RepositoryState,
  draft: Pick<EntryDraft, "kind" | "body">,
): number[] {
  if ("objects" in draft.body) return repairedBirths(state, draft.body.objects);
  const { manifest, segments } = namedObjects(draft);
  const births = segments.filter(({ id }) => !state.segments.has(id)).map(({ birth }) => birth);
  if (manifest === undefined) return births;
  const known = state.backups.get(manifest.backup)?.manifest;
  const isKnown = known?.id === manifest.id && known.birth === manifest.birth;
  return isKnown ? births : [...births, manifest.birth];
}

/** The segments that a body names, whether current or not. */
export function namedSegments(
  draft: Pick<EntryDraft, "kind" | "body">,
): EntryBodies["keep"]["segments"] {
  return namedObjects(draft).segments;
}

type Repaired = EntryBodies["repair"]["objects"][number];

/** Of the objects that lie under another birth from then on. */
function repairedBirths(state: RepositoryState, objects: readonly Repaired[]): number[] {
  return objects
    .filter((object) => !birthsOf(state, object).every((birth) => birth === object.birth))
    .map(({ birth }) => birth);
}

/** Under which births the state knows an object to lie; of a pack, that of its last repair. */
function birthsOf(state: RepositoryState, { kind, id }: Repaired): (number | undefined)[] {
  if (kind === "pack") return [state.repairs.get(id)];
  if (kind === "index") return [state.segments.get(id)?.birth];
  const manifests = Array.from(state.backups.values(), ({ manifest }) => manifest);
  return manifests.filter((manifest) => manifest.id === id).map(({ birth }) => birth);
}

function birthsFault(state: RepositoryState, entry: EntryOf<EntryKind>): string | undefined {
  const named = newBirths(state, entry);
  const { births, sequence } = entry;
  if (births === null) {
    return named.length === 0 ? undefined : "it names new objects and carries no births";
  }
  if (named.length === 0) return "it carries births and names nothing new";
  const [lowest, highest] = births;
  const isWithin = named.every((birth) => birth >= lowest && birth <= highest);
  if (!isWithin || lowest > highest) return "its births disagree with what it names";
  if (lowest <= state.floor) {
    return `it newly names an object of birth ${lowest}, at or below the floor ${state.floor}`;
  }
  if (highest >= sequence) {
    return `it newly names an object of birth ${highest}, not below its own sequence`;
  }
}

type Named = {
  readonly segments: EntryBodies["keep"]["segments"];
  readonly manifest?: { readonly backup: string; readonly id: string; readonly birth: number };
};

function namedObjects(draft: Pick<EntryDraft, "kind" | "body">): Named {
  const { body } = draft;
  if ("manifest" in body) {
    return { segments: body.segments, manifest: { ...body.manifest, backup: body.backup } };
  }
  if ("segments" in body) return { segments: body.segments };
  if ("output" in body && body.output !== null) return { segments: [body.output] };
  return { segments: [] };
}

type Rule<Kind extends EntryKind> = {
  /** Why the entry has no effect, from its bytes and the state alone. */
  readonly voidBecause?: (
    state: RepositoryState,
    body: EntryBodies[Kind],
    entry: EntryOf<Kind>,
  ) => string | undefined;
  readonly effect: (draft: StateDraft, body: EntryBodies[Kind], entry: EntryOf<Kind>) => void;
};

const RULES: { readonly [Kind in EntryKind]: Rule<Kind> } = {
  note: { effect: () => undefined },

  backup: {
    voidBecause: backupFault,
    effect(draft, body, entry) {
      const { sequence, time, operation } = entry;
      // Its keys are in a table of their own.
      const { keys, ...record } = body;
      const undone = undoneBy(draft.state, body);
      draft.edit("backups").set(body.backup, { ...record, sequence, time, operation, ...undone });
      if (draft.state.buried.has(body.backup)) draft.edit("buried").delete(body.backup);
      draft.edit("everIds").add(body.backup);
      // A repack spoke for the list that was there then, not for this one.
      if (draft.state.moves.has(body.backup)) draft.edit("moves").delete(body.backup);
      makeCurrent(draft, body.segments, sequence);
      addKeys(draft, keys);
      revive(draft, body.revived);
      if (draft.state.keeps.has(operation)) draft.edit("keeps").delete(operation);
    },
  },

  keep: {
    effect(draft, body, entry) {
      const { sequence, time, operation, writer } = entry;
      makeCurrent(draft, body.segments, sequence);
      addKeys(draft, body.keys);
      const before = draft.state.keeps.get(operation)?.segments ?? [];
      const segments = [...new Set([...before, ...body.segments.map(({ id }) => id)])];
      draft.edit("keeps").set(operation, { segments, sequence, time, node: writer.node });
    },
  },

  forget: {
    voidBecause(state, body) {
      // What others had and this log never will is buried, so that nobody brings it.
      const isCarried = body.scope === "all" && body.origin !== undefined;
      const missing = body.backups.find(
        (id) => !isListed(state, id) && !(isCarried && !state.everIds.has(id)),
      );
      return missing === undefined ? undefined : `backup ${missing} is not listed`;
    },
    effect(draft, body, { sequence, time }) {
      const { reason, scope, origin = { site: draft.state.siteId, sequence } } = body;
      const backups = draft.edit("backups");
      for (const id of body.backups) {
        const record = backups.get(id);
        if (record === undefined) {
          draft.edit("everIds").add(id);
          draft.edit("buried").set(id, origin);
        } else {
          backups.set(id, { ...record, forgotten: { sequence, time, reason, scope, origin } });
        }
      }
    },
  },

  undo: {
    voidBecause(state, body) {
      const sequence = state.backups.get(body.backup)?.forgotten?.sequence;
      if (sequence === body.forget) return undefined;
      return `backup ${body.backup} is not forgotten by entry ${body.forget}`;
    },
    effect(draft, body) {
      const record = draft.state.backups.get(body.backup);
      if (record?.forgotten === undefined) return;
      const { forgotten, ...listed } = record;
      const undone = withOrigin(record, forgotten.origin);
      draft.edit("backups").set(body.backup, { ...listed, undone });
      revive(draft, body.revived);
    },
  },

  retire: {
    effect(draft, body, entry) {
      retire(draft, body.packs, entry);
      noteCleanup(draft, entry);
    },
  },

  delete: {
    voidBecause: deleteFault,
    effect(draft, body, entry) {
      const { sequence } = entry;
      const { floor } = body;
      for (const pack of body.packs) {
        draft.edit("retired").delete(pack);
        draft.edit("deleted").set(pack, { sequence, floor });
        if (draft.state.repairs.has(pack)) draft.edit("repairs").delete(pack);
      }
      for (const id of body.backups) {
        const forgotten = draft.state.backups.get(id)?.forgotten;
        if (forgotten?.scope === "all") draft.edit("buried").set(id, forgotten.origin);
        draft.edit("backups").delete(id);
        draft.edit("moves").delete(id);
      }
      draft.set({ floor });
      noteCleanup(draft, entry);
    },
  },

  pin: {
    voidBecause(state, body) {
      return state.backups.has(body.backup) ? undefined : `backup ${body.backup} is not here`;
    },
    effect(draft, body, { sequence, time }) {
      const { pin, backup, reason } = body;
      draft.edit("pins").set(pin, { backup, reason, sequence, time });
    },
  },

  drop: {
    effect(draft, body) {
      for (const operation of body.keeps) draft.edit("keeps").delete(operation);
      for (const pin of body.pins) draft.edit("pins").delete(pin);
    },
  },

  merge: {
    voidBecause(state, body) {
      const missing = body.inputs.find((id) => !state.segments.has(id));
      if (missing !== undefined) return `segment ${missing} is not current`;
      const kept = new Set(state.keeps.values().flatMap(({ segments }) => segments));
      const held = body.inputs.find((id) => kept.has(id));
      return held === undefined ? undefined : `a keep names segment ${held}`;
    },
    effect(draft, body, { sequence }) {
      const { output } = body;
      const segments = draft.edit("segments");
      if (output !== null) makeCurrent(draft, [output], sequence);
      for (const id of body.inputs) if (id !== output?.id) segments.delete(id);
      for (const pack of body.dropped) draft.edit("deleted").delete(pack);
    },
  },

  repack: {
    voidBecause(state, body) {
      const current = body.segments.find(({ id }) => state.segments.has(id));
      return current === undefined ? undefined : `segment ${current.id} is current already`;
    },
    effect(draft, body, entry) {
      const { sequence } = entry;
      makeCurrent(draft, body.segments, sequence);
      retire(draft, body.from, entry);
      const move = { sequence, from: body.from, to: body.to };
      for (const id of spokenFor(draft.state)) {
        draft.edit("moves").set(id, [...(draft.state.moves.get(id) ?? []), move]);
      }
      noteCleanup(draft, entry);
    },
  },

  role: {
    voidBecause(state, body) {
      const primary = body.sites.find(({ site }) => site === body.primary);
      if (primary?.role !== "primary") return `its primary ${body.primary} is not among its sites`;
      if (areBetterRoles(body, state.roles)) return undefined;
      return `epoch ${body.epoch} is not above what entry ${state.roles?.sequence} says`;
    },
    effect: (draft, body, { sequence }) => draft.set({ roles: { ...body, sequence } }),
  },

  closed: {
    effect: (draft, body, { sequence, time }) => draft.set({ closed: { ...body, sequence, time } }),
  },

  rekey: {
    voidBecause(state, body) {
      const missing = body.keys.find(({ id }) => !state.keys.has(id));
      return missing === undefined ? undefined : `session key ${missing.id} is not here`;
    },
    effect(draft, { keys, recipients }) {
      if (keys.length === 0) return;
      const table = draft.edit("keys");
      for (const { id, birth, hash } of keys) table.set(id, { birth, hash, recipients });
    },
  },

  repair: {
    voidBecause(state, body) {
      // Which packs there are is not in the state; who commits has looked.
      const missing = body.objects.find(
        ({ kind, id }) =>
          (kind === "index" && !state.segments.has(id)) ||
          (kind === "manifest" && !state.backups.values().some((one) => one.manifest.id === id)),
      );
      return missing === undefined ? undefined : `${missing.kind} ${missing.id} is not here`;
    },
    effect(draft, body) {
      for (const object of body.objects) repair(draft, object);
    },
  },
};

/** The first object of a key is as good as any later one. */
function addKeys(draft: StateDraft, keys: EntryBodies["keep"]["keys"] = []): void {
  const fresh = keys.filter(({ id }) => !draft.state.keys.has(id));
  if (fresh.length === 0) return;
  const table = draft.edit("keys");
  for (const { id, ...key } of fresh) table.set(id, key);
}

function repair(draft: StateDraft, { kind, id, birth }: Repaired): void {
  if (kind === "pack") {
    draft.edit("repairs").set(id, birth);
    return;
  }
  if (kind === "index") {
    const ref = draft.state.segments.get(id);
    if (ref !== undefined) draft.edit("segments").set(id, { ...ref, birth });
    return;
  }
  for (const [key, record] of draft.state.backups) {
    if (record.manifest.id !== id) continue;
    draft.edit("backups").set(key, { ...record, manifest: { ...record.manifest, birth } });
  }
}

/** What a backup that is listed again by its entry stands above from then on. */
function undoneBy(state: RepositoryState, body: BackupBody): Pick<BackupRecord, "undone"> {
  const before = state.backups.get(body.backup);
  const origin = before?.forgotten?.origin ?? state.buried.get(body.backup) ?? body.overrides;
  return origin === undefined ? {} : { undone: withOrigin(before, origin) };
}

function withOrigin(
  record: BackupRecord | undefined,
  origin: Readonly<ForgetRef>,
): readonly Readonly<ForgetRef>[] {
  const before = record?.undone ?? [];
  return hasUndone(record, origin) ? before : [...before, origin];
}

function backupFault(state: RepositoryState, body: BackupBody): string | undefined {
  if (!state.everIds.has(body.backup)) return undefined;
  const taken = `this log has had backup ${body.backup}`;
  if (isListed(state, body.backup)) return `${taken}, and lists it`;
  const { overrides } = body;
  if (overrides === undefined) return `${taken}, and it names no forget to override`;
  // A forget in the log of another site cannot be checked here; one that was deleted neither.
  const forgotten = state.backups.get(body.backup)?.forgotten;
  if (overrides.site !== state.siteId || forgotten === undefined) return undefined;
  if (overrides.sequence === forgotten.sequence) return undefined;
  return `${taken}, forgotten by entry ${forgotten.sequence} and not ${overrides.sequence}`;
}

function deleteFault(
  state: RepositoryState,
  body: EntryBodies["delete"],
  entry: EntryOf<"delete">,
): string | undefined {
  const { floor, backups, packs } = body;
  if (floor < state.floor) return `its floor ${floor} is below the former one, ${state.floor}`;
  if (floor > entry.sequence - 1) return `its floor ${floor} passes entry ${entry.sequence - 1}`;
  const pinned = new Set(state.pins.values().map(({ backup }) => backup));
  for (const id of backups) {
    const record = state.backups.get(id);
    if (record?.forgotten === undefined) return `backup ${id} is not forgotten`;
    if (pinned.has(id)) return `backup ${id} is pinned`;
    if (record.manifest.birth > floor) return `its floor is below the manifest of backup ${id}`;
  }
  const live = packs.find((pack) => !state.retired.has(pack));
  return live === undefined ? undefined : `pack ${live} is not retired`;
}

function isListed(state: RepositoryState, id: string): boolean {
  const record = state.backups.get(id);
  return record !== undefined && record.forgotten === undefined;
}

/** The backups that a repack speaks for: those listed or pinned now. */
function spokenFor(state: RepositoryState): string[] {
  const pinned = new Set(state.pins.values().map(({ backup }) => backup));
  return [...state.backups.keys()].filter((id) => isListed(state, id) || pinned.has(id));
}

function makeCurrent(
  draft: StateDraft,
  refs: EntryBodies["keep"]["segments"],
  sequence: number,
): void {
  for (const ref of refs) {
    // What is current stays under the birth that was named first: its object is the one to keep.
    if (!draft.state.segments.has(ref.id)) draft.edit("segments").set(ref.id, { ...ref, sequence });
  }
}

function revive(draft: StateDraft, packs: readonly string[]): void {
  for (const pack of packs) draft.edit("retired").delete(pack);
}

/** What is retired already keeps its date. */
function retire(
  draft: StateDraft,
  packs: readonly string[],
  { sequence, time }: { readonly sequence: number; readonly time: string },
): void {
  for (const pack of packs) {
    if (!draft.state.retired.has(pack)) draft.edit("retired").set(pack, { sequence, time });
  }
}

function noteCleanup(
  draft: StateDraft,
  { sequence, operation }: { readonly sequence: number; readonly operation: string },
): void {
  if (draft.state.lastCleanup?.operation === operation) return;
  draft.set({ lastCleanup: { sequence, operation } });
}
