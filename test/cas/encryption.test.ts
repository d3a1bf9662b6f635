/**
 * Encrypted repositories: what comes back, what a node alone cannot open, what nobody can see in the
 * stored bytes, and what is refused.
 */
import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { AppError } from "../../src/base/error.ts";
import { realRandom } from "../../src/base/random.ts";
import {
  drawNodeKeys,
  fingerprintOf,
  formatNodeKeys,
  parseNodeKeys,
} from "../../src/cas/format/node-keys.ts";
import { PackBuilder } from "../../src/cas/format/pack-builder.ts";
import { decodeFrame, isStoredFrame, openPack } from "../../src/cas/format/pack.ts";
import type { FrameRow } from "../../src/cas/format/pack.ts";
import { Sealer, sessionIdOf } from "../../src/cas/format/seal.ts";
import { rotateKeys } from "../../src/cas/keys/rotate-keys.ts";
import { decodeEntry, encodeEntry, previousOf } from "../../src/cas/log/entry.ts";
import { emptyState } from "../../src/cas/log/state.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { Rig, RiggedFiles } from "./backup-rig.ts";
import { SmallWorld } from "./small-world.ts";
import { HEADER, HEADER_HASH, nextEntry } from "./log-builder.ts";
import { ENCRYPTION, READER, STRANGER } from "./encryption-keys.ts";

const MARK = "Zwetschgenmus-";
const IDENTITIES = [READER.identity];

/** Files of every form: empty, tiny, several chunks, a chunk list of its own. */
function fill(rig: Rig): void {
  rig.write("empty", "");
  rig.write(`folder-${MARK}name/tiny`, `${MARK}tiny content`);
  rig.write("text", `${MARK}line of text\n`.repeat(20_000));
  rig.write("noise", randomBytes(900_000));
  rig.write("large", Buffer.concat([randomBytes(8_000_000), Buffer.from(`${MARK}end`)]));
}

function openRig(options: ConstructorParameters<typeof Rig>[0] = {}): Promise<Rig> {
  return Rig.open({ encryption: ENCRYPTION, identities: IDENTITIES, ...options });
}

describe("an encrypted repository", () => {
  test("gives back what was stored, to whoever has the identity", async () => {
    await using rig = await openRig();
    fill(rig);
    const { stored } = await rig.backup();
    const found = await rig.read(stored.volumes[0]!.listing);
    for (const [path, bytes] of rig.contents()) expect(found.get(path)?.bytes).toEqual(bytes);
  });

  test("shows no name and no content in any stored byte or name", async () => {
    await using rig = await openRig({ node: `${MARK}node` });
    fill(rig);
    await rig.backup();
    rig.write("text", `${MARK}other text\n`.repeat(20_000));
    await rig.backup();
    const markers = [MARK, "files", "backup", "folder", "2026-", ENCRYPTION.recipients[0]!];
    const shown = [...rig.site.objects].flatMap(([key, bytes]) => {
      const text = Buffer.from(bytes).toString("latin1");
      const sealed = /"sealed":"([^"]+)"/.exec(text)?.[1] ?? "";
      const all = `${key} ${text} ${Buffer.from(sealed, "base64").toString("latin1")}`;
      const isOwn = key === "astacus-repository";
      return markers
        .filter((mark) => !isOwn && all.includes(mark))
        .map((mark) => `${key}: ${mark}`);
    });
    expect(shown).toEqual([]);
    expect(Buffer.from(rig.site.objects.get("astacus-repository")!).toString()).not.toContain(MARK);
  });

  test("takes a second backup from a node that can open nothing, without reading a byte", async () => {
    await using rig = await openRig();
    fill(rig);
    await rig.backup();
    const before = rig.site.objects.size;
    const files = new RiggedFiles();
    const { stored } = await rig.backup({ files: files.door });
    expect(files.readBytes).toBe(0);
    expect(stored.totals.newBytes).toBe(0);
    // The log entry, the manifest and the key that it is under.
    expect(rig.site.objects.size - before).toBe(3);
  });

  test("looks every chunk up again with a catalog that trusts nobody, and sends nothing", async () => {
    await using rig = await openRig();
    fill(rig);
    await rig.backup();
    const { stored } = await rig.backup({ lookUpAll: true });
    expect(stored.totals.newBytes).toBe(0);
    const found = await rig.read(stored.volumes[0]!.listing);
    expect(found.get("large")?.bytes).toEqual(rig.contents().get("large"));
  });

  test("lets an append-only file of many chunks grow by its tail", async () => {
    await using rig = await openRig();
    fill(rig);
    await rig.backup();
    rig.append("large", randomBytes(100_000));
    const files = new RiggedFiles();
    const volume = { nature: () => "append-only" as const };
    const { stored } = await rig.backup({ files: files.door, volume });
    expect(files.readBytes).toBeLessThan(2_000_000);
    const found = await rig.read(stored.volumes[0]!.listing);
    expect(found.get("large")?.bytes).toEqual(rig.contents().get("large"));
  });

  test("is opened by no node, and by no other identity, and says whose is needed", async () => {
    await using rig = await openRig();
    fill(rig);
    const { stored } = await rig.backup();
    for (const identities of [[], [STRANGER.identity]]) {
      rig.identities = identities;
      const error = await errorOf(rig.read(stored.volumes[0]!.listing));
      expect(error.kind).toBe("permission");
      expect(`${error.guidance}`).toContain(READER.recipient);
    }
  });

  test("refuses other node keys, none, and keys where it is plain", async () => {
    await using rig = await openRig();
    await rig.backup();
    const others = { ...ENCRYPTION, keys: drawNodeKeys(realRandom) };
    for (const encryption of [others, undefined]) {
      await using wrong = new Rig({ site: rig.site, encryption });
      expect((await errorOf(wrong.openRepository())).kind).toBe("refused");
    }
    await using plain = await Rig.open({});
    await using wrong = new Rig({ site: plain.site, encryption: ENCRYPTION });
    const error = await errorOf(wrong.openRepository());
    expect([error.kind, error.message]).toEqual([
      "refused",
      expect.stringContaining("is plain") as string,
    ]);
  });

  test("stores equal files of two nodes once", async () => {
    await using first = await openRig();
    const content = randomBytes(600_000);
    first.write("one", content);
    await first.backup();
    await using second = await openRig({ site: first.site, node: "b" });
    second.write("two", content);
    const { stored } = await second.backup();
    expect(stored.totals.newBytes).toBe(0);
    const found = await second.read(stored.volumes[0]!.listing);
    expect(found.get("two")?.bytes).toEqual(content);
  });

  test("uses what a failed attempt has sent, and names its key", async () => {
    await using rig = await openRig();
    fill(rig);
    const repository = await rig.openRepository();
    const { backup } = await rig.store(repository, { operation: drawId(realRandom) });
    backup.abandon();
    const { stored } = await rig.backup();
    expect(stored.keys?.length).toBeGreaterThan(0);
    const found = await rig.read(stored.volumes[0]!.listing);
    expect(found.get("noise")?.bytes).toEqual(rig.contents().get("noise"));
  });

  test("keeps an empty volume's list readable for nodes", async () => {
    await using rig = await openRig();
    await rig.backup();
    await rig.backup({ lookUpAll: true });
    expect((await rig.openRepository()).state.backups.size).toBe(2);
  });
});

describe("rotation", () => {
  test("lets a new identity read what was stored before, and what comes", async () => {
    await using rig = await openRig();
    fill(rig);
    const { stored } = await rig.backup();
    const recipients = [STRANGER.recipient];
    const repository = await rig.openRepository();
    const result = await rotateKeys(repository, {
      identities: IDENTITIES,
      recipients,
      operation: drawId(realRandom),
    });
    expect(result).toEqual({ rewrapped: 2, unchanged: 0 });
    rig.identities = [STRANGER.identity];
    const found = await rig.read(stored.volumes[0]!.listing);
    expect(found.get("noise")?.bytes).toEqual(rig.contents().get("noise"));
    // The log leads to the new objects; the old ones lie there still.
    rig.identities = IDENTITIES;
    expect((await errorOf(rig.read(stored.volumes[0]!.listing))).kind).toBe("permission");
    const keys = [...rig.site.objects.keys()].filter((key) => key.startsWith("key/"));
    expect(keys).toHaveLength(4);
  });

  test("changes nothing without an identity that fits, and nothing the second time", async () => {
    await using rig = await openRig();
    await rig.backup();
    const repository = await rig.openRepository();
    const operation = drawId(realRandom);
    const recipients = [STRANGER.recipient];
    const { sequence } = repository.state;
    const wrong = rotateKeys(repository, {
      identities: [STRANGER.identity],
      recipients,
      operation,
    });
    expect((await errorOf(wrong)).kind).toBe("permission");
    expect((await repository.catchUp()).sequence).toBe(sequence);
    const how = { identities: IDENTITIES, recipients, operation };
    // One of the node's share, one of the manifest.
    expect((await rotateKeys(repository, how)).rewrapped).toBe(2);
    expect(await rotateKeys(repository, how)).toEqual({ rewrapped: 0, unchanged: 2 });
  });
});

describe("cleanup by nodes that open nothing", () => {
  test("repacks, twice, moving frames as they are; what is left is read with the identity", async () => {
    using world = await SmallWorld.create({ encryption: ENCRYPTION });
    const node = await world.open();
    const first = await world.backup(node, [1, 2, 3, 4, 5, 6]);
    const second = await world.backup(node, [1, 2, 7, 8]);
    await world.backup(node, [1]);
    let repacks = 0;
    for (const backup of [first, second]) {
      await world.forget(node, backup);
      for (const _ of [1, 2, 3]) repacks += (await world.cleanup(node)).repacks.length;
    }
    expect(repacks).toBeGreaterThan(0);
    const seals = [...node.repository.index.packs()].flatMap(({ frames }) =>
      frames.map(({ seal }) => seal),
    );
    expect(seals.every((seal) => seal !== undefined)).toBe(true);
    expect(await world.check()).toBe(1);
    await world.backup(node, [1, 50]);
    expect(await world.check()).toBe(2);
  });

  test("merges segments and rebuilds an index from nothing", async () => {
    using world = await SmallWorld.create({ encryption: ENCRYPTION });
    const node = await world.open();
    for (let number = 0; number < 14; number++) await world.backup(node, [number, 99]);
    const report = await world.cleanup(node);
    expect(report.merges.length).toBeGreaterThan(0);
    await node.repository.rebuildIndex();
    expect(await world.check()).toBe(14);
  });
});

describe("sealed bytes", () => {
  const sealer = new Sealer({ ...ENCRYPTION.keys, repository: "ab".repeat(16) });
  const session = { id: sessionIdOf(randomBytes(32)), key: randomBytes(32) };
  const pack = (() => {
    const builder = new PackBuilder({
      kind: "data",
      packSizeBytes: 1_000_000,
      compression: { level: 1 },
      salt: () => randomBytes(16),
      sealing: { sealer, session },
    });
    for (let index = 0; index < 4; index++) {
      const bytes = Buffer.concat([Buffer.from([index]), randomBytes(40_000)]);
      builder.add(sealer.chunkId(bytes), bytes);
    }
    return builder.finish()!;
  })();
  const openingOf = (frame: FrameRow, by = sealer): Uint8Array =>
    by.frameOpening(frame.seal!, by.frameKey(frame.seal!.origin, session.key));
  const cut = ({ offset, storedLength }: FrameRow): Uint8Array =>
    pack.bytes.slice(offset, offset + storedLength);

  test("are read back from the pack, by checksum and by key", () => {
    const { frames } = openPack(pack.bytes, pack.id, "pack", sealer);
    expect(frames).toHaveLength(4);
    for (const frame of frames) {
      expect(isStoredFrame(cut(frame), frame, sealer)).toBe(true);
      const raw = decodeFrame(cut(frame), frame, "frame", openingOf(frame));
      expect(sealer.isChunk(raw, frame.chunks[0]!.id)).toBe(true);
    }
  });

  test("are refused when flipped, cut, swapped, of another repository or at another number", () => {
    const [first, second] = pack.directory.frames as readonly [FrameRow, FrameRow];
    const flipped = cut(first);
    flipped[17] = (flipped[17] ?? 0) ^ 1;
    const other = new Sealer({ ...ENCRYPTION.keys, repository: "cd".repeat(16) });
    const { origin } = first.seal!;
    const renumbered = { ...first, seal: { origin, number: 1 } };
    const renamed = {
      ...first,
      seal: { origin: { ...origin, kind: "metadata" as const }, number: 0 },
    };
    for (const [stored, row, by] of [
      [flipped, first, sealer],
      [cut(first).subarray(0, -1), { ...first, storedLength: first.storedLength - 1 }, sealer],
      [cut(second), first, sealer],
      [cut(first), renumbered, sealer],
      [cut(first), renamed, sealer],
      [cut(first), first, other],
    ] as const) {
      expect(() => decodeFrame(stored, row, "frame", openingOf(row, by))).toThrow("does not open");
    }
    expect(isStoredFrame(flipped, first, sealer)).toBe(false);
    expect(isStoredFrame(cut(second), first, sealer)).toBe(false);
  });

  test("of an object are those of its kind and its content only", () => {
    const plain = new TextEncoder().encode("state");
    const sealed = sealer.sealObject("checkpoint", plain);
    expect(sealer.sealObject("checkpoint", plain)).toEqual(sealed);
    expect(Buffer.from(sealer.openObject("checkpoint", sealed, "it")).toString()).toBe("state");
    expect(() => sealer.openObject("index", sealed, "it")).toThrow("does not open");
    for (let at = 0; at < sealed.length; at++) {
      const damaged = sealed.slice();
      damaged[at] = (damaged[at] ?? 0) ^ 0x10;
      expect(() => sealer.openObject("checkpoint", damaged, "it")).toThrow(AppError);
      expect(() => sealer.openObject("checkpoint", sealed.subarray(0, at), "it")).toThrow(AppError);
    }
  });

  test("of a log entry belong to its place", () => {
    const header = { ...HEADER };
    const entry = nextEntry(emptyState(HEADER_HASH, header), {
      kind: "note",
      body: { text: MARK },
    });
    const bytes = encodeEntry(entry, sealer);
    expect(Buffer.from(bytes).toString()).not.toContain(MARK);
    expect(decodeEntry(bytes, 1, sealer)).toEqual(entry);
    expect(previousOf(bytes, 1)).toBe(entry.previous);
    const moved = JSON.parse(Buffer.from(bytes).toString()) as { sequence: number };
    const replayed = new TextEncoder().encode(JSON.stringify({ ...moved, sequence: 2 }));
    expect(() => decodeEntry(replayed, 2, sealer)).toThrow("another place");
    expect(() => decodeEntry(encodeEntry(entry), 1, sealer)).toThrow(AppError);
    expect(() => decodeEntry(bytes, 1)).toThrow(AppError);
  });

  test("of a node key file are read as written, and refused when anything is changed", () => {
    const text = formatNodeKeys(ENCRYPTION.keys);
    expect(fingerprintOf(parseNodeKeys(text, "file"))).toBe(fingerprintOf(ENCRYPTION.keys));
    expect(() => parseNodeKeys(text.slice(0, -3), "file")).toThrow("not a node key file");
    expect(() => parseNodeKeys(text.replace("KEY-1-", "KEY-1-A"), "file")).toThrow(AppError);
  });
});

async function errorOf(failing: Promise<unknown>): Promise<AppError> {
  const error = await failing.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof AppError) return error;
  throw new Error(`no AppError but ${String(error)}`);
}
