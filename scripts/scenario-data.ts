/**
 * Real files for the scenario: folders are split over the nodes with overlap, as replicas are, then
 * changed and grown as time does. The sources are only read.
 */
import * as fs from "node:fs";
import { basename, dirname, join } from "node:path";

/** A part of the sources that stays together. */
export type Unit = { readonly source: string; readonly target: string; readonly bytes: number };

/** Parts that are larger are split, as far as their folders allow. */
const UNIT_BYTES_MAX = 32 * 1024 ** 2;

/** Splits the sources into units, in a fixed order. */
export function listUnits(sources: readonly string[]): Unit[] {
  return sources.flatMap((source) => split(source, basename(source)));
}

function split(source: string, target: string): Unit[] {
  const bytes = sizeOf(source);
  if (bytes <= UNIT_BYTES_MAX || !fs.lstatSync(source).isDirectory()) {
    return [{ source, target, bytes }];
  }
  return fs
    .readdirSync(source)
    .toSorted()
    .flatMap((name) => split(join(source, name), join(target, name)));
}

/** Copies each unit to one root, and every third to the next one as well. */
export function spread(units: readonly Unit[], roots: readonly string[], first = 0): void {
  for (const [index, unit] of units.entries()) {
    const holders = index % 3 === 0 ? [index, index + 1] : [index];
    for (const holder of holders) copy(unit, roots[(first + holder) % roots.length] ?? "");
  }
}

/** What a restore has to get right besides bytes. */
export function addOddities(root: string): void {
  const odd = join(root, "odd");
  fs.mkdirSync(join(odd, "empty"), { recursive: true, mode: 0o750 });
  fs.writeFileSync(join(odd, "mode-0400"), "read only\n", { mode: 0o400 });
  fs.writeFileSync(join(odd, "empty-file"), "");
  fs.writeFileSync(Buffer.concat([Buffer.from(`${odd}/not-utf8-`), Buffer.of(0xff, 0xfe)]), "x");
  fs.symlinkSync("../nowhere", join(odd, "dangling"));
  fs.linkSync(join(odd, "mode-0400"), join(odd, "another-name"));
  fs.utimesSync(join(odd, "empty-file"), 1, 1.25);
}

/** Files grow, change inside, go, move and come; `round` makes each change differ. */
export function changeFiles(root: string, round: number): void {
  const files = listFiles(root);
  const pick = (rest: number): string[] =>
    files.filter((_, index) => (index + round) % 97 === rest).slice(0, 400);
  for (const path of pick(0)) {
    writable(path);
    fs.appendFileSync(path, `grown in round ${round}\n`);
  }
  for (const path of pick(1)) overwrite(path, round);
  for (const path of pick(2).slice(0, 50)) fs.rmSync(path);
  for (const path of pick(3).slice(0, 50)) fs.renameSync(path, `${path}.moved-${round}`);
  fs.writeFileSync(join(root, `new-${round}`), `new in round ${round}\n`.repeat(1000));
}

/** Gives files a second name and takes it away again: only ctime moves. */
export function linkAndUnlink(root: string): number {
  const files = listFiles(root).filter((_, index) => index % 20 === 0);
  for (const path of files) {
    fs.linkSync(path, `${path}.second-name`);
    fs.unlinkSync(`${path}.second-name`);
  }
  return files.length;
}

/** Bytes of all files below a path. */
export function sizeOf(path: string): number {
  const stat = fs.lstatSync(path);
  if (!stat.isDirectory()) return stat.isFile() ? stat.size : 0;
  return fs.readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0);
}

/** Empties a folder, whatever modes its content has. */
export function empty(root: string): void {
  fs.rmSync(root, { recursive: true, force: true });
  fs.mkdirSync(root, { recursive: true });
}

function overwrite(path: string, round: number): void {
  writable(path);
  const handle = fs.openSync(path, "r+");
  fs.writeSync(handle, `changed in round ${round}`, Math.floor(fs.fstatSync(handle).size / 2));
  fs.closeSync(handle);
}

function writable(path: string): void {
  fs.chmodSync(path, fs.statSync(path).mode | 0o200);
}

/** Regular files below a folder. Never through a symbolic link: what lies behind one is not ours. */
function listFiles(root: string): string[] {
  const found: string[] = [];
  for (const entry of fs.readdirSync(root, { withFileTypes: true })) {
    const path = join(root, entry.name);
    if (entry.isDirectory() && entry.name !== "odd") found.push(...listFiles(path));
    else if (entry.isFile()) found.push(path);
  }
  return found.toSorted();
}

function copy(unit: Unit, root: string): void {
  const target = join(root, unit.target);
  fs.mkdirSync(dirname(target), { recursive: true });
  const done = Bun.spawnSync(["cp", "-a", "--reflink=auto", unit.source, target]);
  if (!done.success) throw new Error(`cp ${unit.source}: ${done.stderr.toString()}`);
}
