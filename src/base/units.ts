/**
 * Sizes and durations as people write them (`16MiB`, `2GB`, `30s`, `7d`, `1h30m`) and as the code
 * counts them: whole bytes and whole milliseconds. What `formatSize` and `formatDuration` write with
 * `exact`, the parsers read back as the same number.
 */
import { AppError } from "./error.ts";

const SIZE_UNITS = {
  B: 1,
  kB: 1000,
  MB: 1000 ** 2,
  GB: 1000 ** 3,
  TB: 1000 ** 4,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
} as const;

const DURATION_UNITS = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
} as const;

/** One day, in milliseconds. */
export const DAY_MS = DURATION_UNITS.d;

/** What `parseSize` accepts, for messages. */
export const SIZE_EXPECTED = "a size such as 512KiB, 16MiB or 2GB (B, kB, MB, GB, TB, KiB … TiB)";

/** What `parseDuration` accepts, for messages. */
export const DURATION_EXPECTED = "a duration such as 500ms, 30s, 12h, 7d or 1h30m";

/** Bytes of `16MiB`, `1.5GB` or `4096` (a bare number is bytes); throws AppError `usage`. */
export function parseSize(text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$/.exec(text);
  const unit = match === null ? undefined : getSizeUnit(match[2] ?? "");
  if (match === null || unit === undefined) throw wrongUnit(text, SIZE_EXPECTED);
  const bytes = Number(match[1]) * unit;
  // A fraction of a unit is welcome (1.5GiB), a fraction of a byte is a slip.
  if (!Number.isSafeInteger(bytes)) throw wrongUnit(text, "a whole number of bytes below 8 PiB");
  return bytes;
}

/** What `parseRate` accepts, for messages. */
export const RATE_EXPECTED = "a number of bytes a second such as 50MB/s or 512KiB/s";

/** Bytes per second of `50MB/s`; what has no `/s` is refused. Throws AppError `usage`. */
export function parseRate(text: string): number {
  const size = /^(.*\S)\s*\/\s*s\s*$/.exec(text)?.[1];
  if (size === undefined) throw wrongUnit(text, RATE_EXPECTED);
  return parseSize(size);
}

/** Milliseconds of `30s` or `1h30m`; a number without a unit is refused. Throws AppError `usage`. */
export function parseDuration(text: string): number {
  const squeezed = text.replaceAll(/\s+/g, "");
  if (!/^(?:\d+(?:\.\d+)?[A-Za-z]+)+$/.test(squeezed)) throw wrongUnit(text, DURATION_EXPECTED);
  let totalMs = 0;
  for (const [, amount, unit] of squeezed.matchAll(/(\d+(?:\.\d+)?)([A-Za-z]+)/g)) {
    if (unit === undefined || !isDurationUnit(unit)) throw wrongUnit(text, DURATION_EXPECTED);
    totalMs += Number(amount) * DURATION_UNITS[unit];
  }
  if (!Number.isSafeInteger(totalMs)) throw wrongUnit(text, "a whole number of milliseconds");
  return totalMs;
}

/**
 * Bytes for people, binary units: `1.5 GiB`. With `exact` the shortest text that `parseSize` reads
 * back as the same number: `1536MiB`.
 */
export function formatSize(bytes: number, options: { readonly exact?: boolean } = {}): string {
  const binary = (["TiB", "GiB", "MiB", "KiB", "B"] as const).map(
    (name) => [name, SIZE_UNITS[name]] as const,
  );
  if (options.exact === true) {
    const fit = binary.find(([, unit]) => bytes !== 0 && bytes % unit === 0) ?? (["B", 1] as const);
    return `${bytes / fit[1]}${fit[0]}`;
  }
  const [name, unit] = binary.find(([, size]) => Math.abs(bytes) >= size) ?? (["B", 1] as const);
  return `${trimmed(bytes / unit)} ${name}`;
}

/**
 * A duration for people, at most two units: `1d 2h`, `3.2s`. With `exact` the text that
 * `parseDuration` reads back as the same number: `90m`.
 */
export function formatDuration(ms: number, options: { readonly exact?: boolean } = {}): string {
  const units = Object.entries(DURATION_UNITS).toReversed();
  if (options.exact === true) {
    // Weeks are left out: 7d is what people write.
    const fit = units.find(([name, unit]) => name !== "w" && ms !== 0 && ms % unit === 0);
    return fit === undefined ? `${ms}ms` : `${ms / fit[1]}${fit[0]}`;
  }
  const rounded = Math.round(ms);
  if (rounded < DURATION_UNITS.s) return `${rounded}ms`;
  // Above 59.95 s one decimal would round up to sixty.
  if (rounded < 59_950) return `${trimmed(rounded / DURATION_UNITS.s)}s`;
  const seconds = Math.round(rounded / 1000);
  const parts = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "m"],
    [seconds % 60, "s"],
  ] as const;
  const first = parts.findIndex(([amount]) => amount > 0);
  const shown = parts.slice(first, first + 2).filter(([amount]) => amount > 0);
  return shown.map(([amount, unit]) => `${amount}${unit}`).join(" ");
}

function getSizeUnit(name: string): number | undefined {
  if (name === "") return 1;
  // Case is not a difference that anybody means here, so `kib` and `KB` are taken as written.
  const known = Object.entries(SIZE_UNITS).find(
    ([unit]) => unit.toLowerCase() === name.toLowerCase(),
  );
  return known?.[1];
}

function isDurationUnit(name: string): name is keyof typeof DURATION_UNITS {
  return Object.hasOwn(DURATION_UNITS, name);
}

function wrongUnit(text: string, expected: string): AppError {
  return new AppError("usage", `"${text}" is not ${expected}`);
}

function trimmed(value: number): string {
  const digits = value >= 100 ? 0 : 1;
  return value.toFixed(digits).replace(/\.0$/, "");
}
