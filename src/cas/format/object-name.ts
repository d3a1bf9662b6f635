/**
 * What the name of an object in a site says of it (docs/format.md section 2). Whatever no writer of
 * this format would name so is `unknown`, and nothing is done to it.
 */

/** What a key in a site says of its object. */
export type ObjectKey = {
  readonly kind:
    | "pack"
    | "index"
    | "manifest"
    | "checkpoint"
    | "log"
    | "key"
    | "header"
    | "probe"
    | "unknown";
  readonly id?: string;
  /** Of a checkpoint: its sequence. */
  readonly birth?: number;
  /** Of log entries and checkpoints. */
  readonly sequence?: number;
};

const BORN_KEY =
  /^(?:pack\/([0-9a-f]{2})|index|manifest|key)\/([0-9a-f]{64})-(0|[1-9][0-9]{0,14})$/;
const LOG_KEY = /^log\/([0-9]{12})$/;
const CHECKPOINT_KEY = /^checkpoint\/([0-9]{1,15})-([0-9a-f]{64})$/;

/** What the key of an object says; `unknown` for what no writer of this format would name so. */
export function parseObjectKey(key: string): ObjectKey {
  if (key === "astacus-repository") return { kind: "header" };
  if (key.startsWith("probe/")) return { kind: "probe" };
  const log = LOG_KEY.exec(key);
  if (log !== null) return { kind: "log", sequence: Number(log[1]) };
  const checkpoint = CHECKPOINT_KEY.exec(key);
  if (checkpoint?.[2] !== undefined) {
    const sequence = Number(checkpoint[1]);
    return { kind: "checkpoint", id: checkpoint[2], birth: sequence, sequence };
  }
  const [, prefix, id, birth] = BORN_KEY.exec(key) ?? [];
  if (id === undefined || birth === undefined) return { kind: "unknown" };
  if (prefix !== undefined && !id.startsWith(prefix)) return { kind: "unknown" };
  const kind = key.slice(0, key.indexOf("/")) as "pack" | "index" | "manifest" | "key";
  return { kind, id, birth: Number(birth) };
}
