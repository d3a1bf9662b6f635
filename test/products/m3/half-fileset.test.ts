/** A capture that meets a fileset while M3 deletes it: its checkpoint is there, a part is not. */
import { describe, expect, test } from "bun:test";
import { LogCuts } from "../../../src/products/m3/capture-logs.ts";
import { captureM3 } from "../../../src/products/m3/capture.ts";
import type { Captured } from "../../../src/products/m3/capture.ts";
import { filesetFileName } from "../../../src/products/m3/fileset-names.ts";
import { MemoryFileSystem } from "../../simulation/memory-file-system.ts";
import { encodeFileset } from "./m3-encoders.ts";

const FOLDER = "/m3/data/default/0";

function diskWithVolumes(): MemoryFileSystem {
  const files = new MemoryFileSystem({ clock: { now: () => 0 } });
  for (const path of [
    "/m3",
    "/m3/commitlogs",
    "/m3/data",
    "/m3/data/default",
    FOLDER,
    "/scratch",
  ]) {
    files.makeDirectory(path);
  }
  for (const volume of [0, 1]) {
    const content = { blockStartNs: 60n, volume, entryCount: 1, data: Buffer.from("points") };
    for (const [part, bytes] of encodeFileset(content)) {
      const handle = files.open(pathOf(volume, part), "create");
      files.write(handle, bytes, 0);
      files.close(handle);
    }
  }
  files.unlink(pathOf(0, "bloomfilter"));
  return files;
}

function pathOf(volume: number, part: string): string {
  return `${FOLDER}/${filesetFileName({ blockStartNs: 60n, volume, isLegacy: false }, part)}`;
}

async function capture(files: MemoryFileSystem): Promise<Captured> {
  return await captureM3({
    files,
    root: "/m3",
    scratch: "/scratch",
    triesMax: 3,
    cuts: new LogCuts(),
    say: () => undefined,
    pause: () => Promise.resolve(),
    signal: new AbortController().signal,
  });
}

describe("a fileset without one of its parts", () => {
  test("is looked at again, and left out when M3 was deleting it", async () => {
    const files = diskWithVolumes();
    let listings = 0;
    files.fault = (call, path) => {
      if (call !== "readDirectory" || path !== FOLDER) return;
      listings += 1;
      if (listings === 2) files.unlink(pathOf(0, "checkpoint"));
    };
    const { counts } = await capture(files);
    expect(counts["data"]).toMatchObject({ filesets: 1, incompleteFilesets: 1, linkedFiles: 7 });
  });

  test("is taken as it is when it stays so: it is damaged, and must be named", async () => {
    const { counts } = await capture(diskWithVolumes());
    expect(counts["data"]).toMatchObject({ filesets: 2, linkedFiles: 13 });
  });
});
