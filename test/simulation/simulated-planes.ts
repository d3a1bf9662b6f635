/**
 * Data planes for simulated processes, used again and again: their WebAssembly memory is what costs
 * most of a simulation's time. A plane serves one process at a time, and the dead get no answer.
 */
import type { FileSystem, Random } from "../../src/base/doors.ts";
import { openInlinePlane } from "../../src/cas/write/plane.ts";
import type { DataPlane } from "../../src/cas/write/plane.ts";
import type { DataPlaneSettings } from "../../src/cas/write/data-plane.ts";
import { contentChecks } from "../../src/products/content-checks.ts";
import type { ProcessLife } from "./simulated-process.ts";
import { never } from "./virtual-clock.ts";

type Doors = { readonly files: FileSystem; readonly random: Random };

type Pooled = { readonly plane: DataPlane; doors: Doors };

const FREE = new Map<string, Pooled[]>();

/** A plane for a process; it goes back when the process ends it or dies. */
export function borrowPlane(
  doors: Doors,
  life: ProcessLife,
  settings: DataPlaneSettings,
): DataPlane {
  const key = JSON.stringify(settings);
  const pooled = FREE.get(key)?.pop() ?? openPooled(settings);
  pooled.doors = doors;
  let isOurs = true;
  const giveBack = (): void => {
    if (!isOurs) return;
    isOurs = false;
    // What the last user left open goes with its process.
    pooled.doors = { ...doors, files: { ...doors.files, close: () => undefined } };
    void pooled.plane.reset();
    FREE.set(key, [...(FREE.get(key) ?? []), pooled]);
  };
  life.onDeath(giveBack);
  const use = <T>(call: () => Promise<T>): Promise<T> => (isOurs ? call() : never<T>());
  return {
    laneCount: 1,
    scan: (lane, slot, tasks) => use(() => pooled.plane.scan(lane, slot, tasks)),
    store: (lane, slot, keep) => use(() => pooled.plane.store(lane, slot, keep)),
    flush: (lane) => use(() => pooled.plane.flush(lane)),
    recycle: (pack) => {
      if (isOurs) pooled.plane.recycle(pack);
    },
    reset: (sealing) => use(() => pooled.plane.reset(sealing)),
    [Symbol.asyncDispose]: async () => {
      if (isOurs) await pooled.plane.reset();
      giveBack();
    },
  };
}

function openPooled(settings: DataPlaneSettings): Pooled {
  const files = new Proxy({} as FileSystem, {
    get: (_, name) => Reflect.get(pooled.doors.files, name) as unknown,
  });
  const random: Random = {
    bytes: (size) => pooled.doors.random.bytes(size),
    fraction: () => pooled.doors.random.fraction(),
  };
  const pooled: Pooled = {
    plane: openInlinePlane({ files, random }, { ...settings, checks: contentChecks }),
    doors: { files, random },
  };
  return pooled;
}
