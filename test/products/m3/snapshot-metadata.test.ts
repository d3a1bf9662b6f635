/** Snapshot metadata: which one counts, and how a restore writes them anew. */
import { describe, expect, test } from "bun:test";
import { snapshotMetadataNames } from "../../../src/products/m3/fileset-names.ts";
import {
  newestCompleteSnapshot,
  parseSnapshotMetadata,
  readSnapshotMetadata,
  rewriteSnapshotMetadata,
} from "../../../src/products/m3/snapshot-metadata.ts";
import { MemoryFileSystem } from "../../simulation/memory-file-system.ts";
import { encodeSnapshotMetadata } from "./m3-encoders.ts";

const FOLDER = "/snapshots";

function uuidOf(index: number): string {
  return index.toString(16).padStart(32, "0");
}

function metadataOf(index: number): { metadata: Uint8Array; checkpoint: Uint8Array } {
  const commitLog = { path: `/m3/commitlogs/commitlog-0-${index}.db`, index };
  return encodeSnapshotMetadata({ index, uuid: uuidOf(index), commitLog });
}

class Disk {
  readonly files = new MemoryFileSystem({ clock: { now: () => 0 } });

  constructor() {
    this.files.makeDirectory(FOLDER);
  }

  put(index: number, change: { metadata?: Uint8Array; checkpoint?: Uint8Array | null } = {}): this {
    const names = snapshotMetadataNames({ uuid: uuidOf(index), index });
    const { metadata, checkpoint } = metadataOf(index);
    this.#write(names.metadata, change.metadata ?? metadata);
    const seal = change.checkpoint === undefined ? checkpoint : change.checkpoint;
    if (seal !== null) this.#write(names.checkpoint, seal);
    return this;
  }

  newest(): number | undefined {
    return newestCompleteSnapshot(this.files, FOLDER)?.index;
  }

  #write(name: string, bytes: Uint8Array): void {
    const handle = this.files.open(`${FOLDER}/${name}`, "create");
    this.files.write(handle, bytes, 0);
    this.files.close(handle);
  }
}

describe("the newest complete snapshot", () => {
  test("is the one with the highest index, as a number", () => {
    expect(new Disk().put(9).put(10).put(2).newest()).toBe(10);
  });

  test("is none without a folder, and none in an empty one", () => {
    expect(newestCompleteSnapshot(new Disk().files, "/elsewhere")).toBeUndefined();
    expect(new Disk().newest()).toBeUndefined();
  });

  test("is an older one when the newest lacks its checkpoint, or contradicts it", () => {
    expect(new Disk().put(1).put(2, { checkpoint: null }).newest()).toBe(1);
    expect(
      new Disk()
        .put(1)
        .put(2, { checkpoint: new Uint8Array(0) })
        .newest(),
    ).toBe(1);
    expect(
      new Disk()
        .put(1)
        .put(2, { checkpoint: new Uint8Array(4) })
        .newest(),
    ).toBe(1);
    expect(
      new Disk()
        .put(1)
        .put(2, { metadata: metadataOf(3).metadata })
        .newest(),
    ).toBe(1);
  });

  test("is found again when the one that was listed vanishes before it is read", () => {
    const disk = new Disk().put(1).put(2);
    const names = snapshotMetadataNames({ uuid: uuidOf(2), index: 2 });
    disk.files.fault = (call, path) => {
      if (call !== "open" || !path.endsWith(names.metadata)) return;
      disk.files.fault = undefined;
      disk.put(3);
      disk.files.unlink(`${FOLDER}/${names.metadata}`);
      disk.files.unlink(`${FOLDER}/${names.checkpoint}`);
    };
    expect(disk.newest()).toBe(3);
  });
});

describe("snapshot metadata", () => {
  test("say from which commit log on a restart reads", () => {
    const disk = new Disk().put(7);
    const { metadata } = snapshotMetadataNames({ uuid: uuidOf(7), index: 7 });
    expect(readSnapshotMetadata(disk.files, FOLDER, metadata)).toEqual({
      index: 7,
      uuid: uuidOf(7),
      commitLog: { path: "/m3/commitlogs/commitlog-0-7.db", index: 7 },
    });
  });

  test("under the name of another snapshot are damaged", () => {
    const { metadata, checkpoint } = metadataOf(7);
    const name = snapshotMetadataNames({ uuid: uuidOf(8), index: 8 }).metadata;
    expect(() => parseSnapshotMetadata(name, metadata, checkpoint)).toThrow("speak of snapshot");
  });

  test("are rewritten for another data folder with their checkpoint, unknown fields kept", () => {
    const { metadata } = metadataOf(7);
    // Field 15, a varint that this version knows nothing of.
    const later = Buffer.concat([metadata, Uint8Array.of(0x78, 0x2a)]);
    const rewritten = rewriteSnapshotMetadata(later, "/var/lib/m3 ä".replace("ä", "\xc3\xa4"));
    const name = snapshotMetadataNames({ uuid: uuidOf(7), index: 7 }).metadata;
    const { commitLog } = parseSnapshotMetadata(name, rewritten.metadata, rewritten.checkpoint);
    expect(commitLog).toEqual({
      path: "/var/lib/m3 \xc3\xa4/commitlogs/commitlog-0-7.db",
      index: 7,
    });
    expect(Buffer.from(rewritten.metadata).includes(Uint8Array.of(0x78, 0x2a))).toBe(true);
  });

  test("are the same bytes when the data folder is the same", () => {
    const { metadata, checkpoint } = metadataOf(7);
    const again = rewriteSnapshotMetadata(metadata, "/m3");
    expect(Buffer.from(again.metadata).equals(metadata)).toBe(true);
    expect(Buffer.from(again.checkpoint).equals(checkpoint)).toBe(true);
  });
});
