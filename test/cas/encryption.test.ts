/**
 * Encrypted repositories: what comes back, what a node alone cannot open, what nobody can see in the
 * stored bytes, and what is refused.
 */
import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { AppError } from "../../src/base/error.ts";
import { realRandom } from "../../src/base/random.ts";
import { drawNodeKeys } from "../../src/cas/format/node-keys.ts";
import { drawId } from "../../src/cas/format/ids.ts";
import { Rig, RiggedFiles } from "./backup-rig.ts";
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

async function errorOf(failing: Promise<unknown>): Promise<AppError> {
  const error = await failing.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof AppError) return error;
  throw new Error(`no AppError but ${String(error)}`);
}
