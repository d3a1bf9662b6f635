/** Manifests: what is written comes back, and what is not a manifest is refused. */
import { FORMAT_VERSION } from "../../src/cas/format/header.ts";
import { expect, test } from "bun:test";
import { sha256Hex } from "../../src/base/hex.ts";
import { decodeManifest, encodeManifest, readManifest } from "../../src/cas/format/manifest.ts";
import type { Manifest } from "../../src/cas/format/manifest.ts";
import { compressZstd } from "../../src/cas/format/zstd.ts";
import { MemorySite } from "../../src/sites/memory-site.ts";

const root = { id: "ab".repeat(32), length: 10, count: 1 };
const totals = { files: 1, bytes: 2, newBytes: 3, storedBytes: 4 };
const manifest: Manifest = {
  v: FORMAT_VERSION,
  backup: "01".repeat(16),
  name: "2026-11-22T18:00:00Z",
  cluster: "c",
  product: "files",
  started: "2026-11-22T18:00:00Z",
  ended: "2026-11-22T18:01:00Z",
  complete: true,
  state: { schema: { tables: ["a", 1, null] } },
  nodes: [
    {
      name: "a",
      zone: "",
      version: "0.1.0",
      volumes: [{ name: "data", root: "/d", listing: root, files: 1, directories: 0, bytes: 2 }],
      list: root,
      totals,
    },
  ],
  problems: [{ node: "a", path: "x", kind: "vanished", message: "gone" }],
  problemCount: 1,
  totals,
};

function encodeText(text: string): { id: string; bytes: Uint8Array } {
  const bytes = compressZstd(new TextEncoder().encode(text), 3);
  return { id: sha256Hex(bytes), bytes };
}

test("a manifest comes back as it was", () => {
  const { id, bytes } = encodeManifest(manifest);
  expect(decodeManifest(bytes, id)).toEqual(manifest);
});

test("bytes that do not have the hash of the name are refused", () => {
  const { id, bytes } = encodeManifest(manifest);
  for (let index = 0; index < bytes.length; index++) {
    const damaged = bytes.slice();
    damaged[index]! ^= 1;
    expect(() => decodeManifest(damaged, id)).toThrow("does not match its name");
  }
});

test("an unknown key is refused even if the hash is right", () => {
  const { id, bytes } = encodeText(JSON.stringify({ ...manifest, later: 1 }));
  expect(() => decodeManifest(bytes, id)).toThrow("not a manifest of version 1");
});

test("what is no JSON is refused even if the hash is right", () => {
  const { id, bytes } = encodeText("{");
  expect(() => decodeManifest(bytes, id)).toThrow("not a manifest of version 1");
});

test("a manifest is read by what the entry names, and must be of that backup", async () => {
  await using site = new MemorySite();
  const { id, bytes } = encodeManifest(manifest);
  await site.put(`manifest/${id}-7`, bytes);
  const ref = { id, birth: 7, sizeBytes: bytes.length };
  expect(await readManifest(site, { backup: manifest.backup, manifest: ref })).toEqual(manifest);
  const other = readManifest(site, { backup: "02".repeat(16), manifest: ref });
  expect(String(await other.catch((error: unknown) => error))).toContain("another");
  const missing = { ...ref, birth: 8 };
  const absent = readManifest(site, { backup: manifest.backup, manifest: missing });
  expect(String(await absent.catch((error: unknown) => error))).toContain("is missing");
});
