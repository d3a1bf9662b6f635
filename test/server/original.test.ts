/**
 * The original's routes: the same paths, fields and codes, over the operations of now.
 */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/base/error.ts";
import { BACKUP, createTestServer } from "./fake-node.ts";

type Started = { op_id: string; status_url: string };

const bodyOf = async (response: Response): Promise<unknown> => await response.json();

test("GET / answers {}", async () => {
  const { ask } = createTestServer();
  expect(await bodyOf(await ask("GET", "/"))).toEqual({});
});

describe("a backup", () => {
  test("is started, watched and done with the fields of the original", async () => {
    const { ask, fake } = createTestServer();
    const gate = Promise.withResolvers<void>();
    fake.work = async (context) => {
      context.progress({ handled: 3, total: 10 });
      await gate.promise;
      return { totals: { files: 10 } };
    };
    const answer = await ask("POST", "/backup");
    expect(answer.status).toBe(200);
    const started = (await bodyOf(answer)) as Started;
    expect(Object.keys(started)).toEqual(["op_id", "status_url"]);
    expect(started.status_url).toBe(`http://localhost:5515/backup/${started.op_id}`);
    const path = new URL(started.status_url).pathname;
    expect(await bodyOf(await ask("GET", path))).toEqual({
      state: "running",
      progress: { handled: 3, failed: 0, total: 10, final: false },
    });
    expect(await bodyOf(await ask("GET", "/busy"))).toBe(true);
    gate.resolve();
    await fake.operations.wait(started.op_id);
    expect(await bodyOf(await ask("GET", path))).toEqual({
      state: "done",
      progress: { handled: 10, failed: 0, total: 10, final: true },
    });
    expect(await bodyOf(await ask("GET", "/busy"))).toBe(false);
  });

  test("that fails is `fail`", async () => {
    const { ask, fake } = createTestServer();
    fake.work = async () => {
      throw new AppError("no-space", "Full.");
    };
    const { op_id: id } = (await bodyOf(await ask("POST", "/backup"))) as Started;
    await fake.operations.wait(id);
    expect(await bodyOf(await ask("GET", `/backup/${id}`))).toMatchObject({ state: "fail" });
  });

  for (const [why, hold] of [
    ["another operation runs here", { refusal: new AppError("conflict", "A backup is running.") }],
    ["a node is leased", { lease: { operation: "1", kind: "backup" } }],
  ] as const) {
    test(`is refused with cluster_lock_unavailable while ${why}`, async () => {
      const { ask, fake } = createTestServer();
      Object.assign(fake, hold);
      const answer = await ask("POST", "/backup");
      expect(answer.status).toBe(409);
      const code = "cluster_lock_unavailable";
      expect(await bodyOf(answer)).toMatchObject({
        code,
        message: expect.any(String),
        detail: { code },
      });
    });
  }
});

test("an operation of another kind or id is operation_id_mismatch", async () => {
  const { ask, fake } = createTestServer();
  const { op_id: id } = (await bodyOf(await ask("POST", "/backup"))) as Started;
  await fake.operations.wait(id);
  for (const path of [`/restore/${id}`, "/backup/17"]) {
    const [, op, request] = path.split("/");
    const answer = await ask("GET", path);
    expect(answer.status).toBe(404);
    expect(await bodyOf(answer)).toMatchObject({
      code: "operation_id_mismatch",
      op,
      request,
      now: id,
    });
  }
});

describe("a restore", () => {
  test("starts at once, by name or without", async () => {
    const { ask, fake } = createTestServer();
    await ask("POST", "/restore", { body: {} });
    await ask("POST", "/restore", { body: { storage: "disk", name: "backup-nightly" } });
    expect(fake.calls).toEqual([
      { method: "restore", request: {} },
      { method: "restore", request: { backup: "backup-nightly" } },
    ]);
  });

  test("of some nodes maps indexes, host names and addresses", async () => {
    const { ask, fake } = createTestServer();
    const answer = await ask("POST", "/restore", {
      body: {
        name: "nightly",
        partial_restore_nodes: [
          { backup_index: 0, node_url: "http://127.0.0.1:5516/node" },
          { backup_hostname: "b", node_index: 0 },
        ],
      },
    });
    expect(answer.status).toBe(200);
    expect(fake.calls[0]?.request).toEqual({
      backup: "nightly",
      nodes: [
        { from: "a", to: "b" },
        { from: "b", to: "a" },
      ],
    });
  });

  for (const [what, body, status] of [
    ["neither index nor name", { partial_restore_nodes: [{ node_index: 0 }] }, 422],
    [
      "both",
      { partial_restore_nodes: [{ backup_index: 0, backup_hostname: "a", node_index: 0 }] },
      422,
    ],
    ["an index beyond", { partial_restore_nodes: [{ backup_index: 9, node_index: 0 }] }, 404],
    ["another storage", { storage: "tape" }, 404],
    ["a step to stop after", { stop_after_step: "RestoreStep" }, 422],
  ] as const) {
    test(`with ${what} is refused`, async () => {
      const { ask, fake } = createTestServer();
      expect((await ask("POST", "/restore", { body })).status).toBe(status);
      expect(fake.calls).toEqual([]);
    });
  }
});

test("the list has every field of the original", async () => {
  const { ask } = createTestServer();
  expect(await bodyOf(await ask("GET", "/list"))).toEqual({
    storages: [
      {
        storage_name: "disk",
        backups: [
          {
            name: "backup-nightly",
            start: BACKUP.started,
            end: BACKUP.ended,
            plugin: "files",
            attempt: 1,
            nodes: 2,
            files: 10,
            total_size: 1000,
            upload_size: 100,
            upload_stored_size: 50,
            cluster_files: 10,
            cluster_data_size: 1000,
          },
        ],
      },
    ],
  });
});

describe("a cleanup", () => {
  test("takes retention, 0 included, and has a status without progress", async () => {
    const { ask, fake } = createTestServer();
    const { op_id: id } = (await bodyOf(
      await ask("POST", "/cleanup", {
        body: { retention: { minimum_backups: 0, maximum_backups: 5, keep_days: null } },
      }),
    )) as Started;
    expect(fake.calls).toEqual([
      { method: "cleanup", request: { retention: { minimum: 0, maximum: 5, keepDays: 3 } } },
    ]);
    await fake.operations.wait(id);
    expect(await bodyOf(await ask("GET", `/cleanup/${id}`))).toEqual({ state: "done" });
  });

  test("with explicit_delete forgets by name, and keeps its status url", async () => {
    const { ask, fake } = createTestServer();
    const body = { explicit_delete: ["backup-nightly"] };
    const started = (await bodyOf(await ask("POST", "/cleanup", { body }))) as Started;
    expect(fake.calls[0]).toMatchObject({
      method: "delete",
      request: { backups: ["backup-nightly"] },
    });
    await fake.operations.wait(started.op_id);
    const path = new URL(started.status_url).pathname;
    expect(await bodyOf(await ask("GET", path))).toEqual({ state: "done" });
  });
});

test("the configuration's status compares the file with what was loaded", async () => {
  const { ask, context } = createTestServer();
  expect(await bodyOf(await ask("GET", "/config/status"))).toEqual({
    config_hash: context.config().hash,
    needs_reload: false,
  });
  expect(await bodyOf(await ask("POST", "/config/reload"))).toEqual({});
});

test("what is gone answers 410 and says why", async () => {
  const { ask } = createTestServer();
  for (const [method, path] of [
    ["POST", "/lock?locker=x"],
    ["POST", "/unlock?locker=x"],
    ["POST", "/delta/backup"],
    ["GET", "/delta/list"],
    ["PUT", "/backup/1/sub-result"],
    ["POST", "/node/snapshot"],
    ["GET", "/node/metadata"],
  ] as const) {
    const answer = await ask(method, path);
    expect({ path, status: answer.status }).toEqual({ path, status: 410 });
    expect(await bodyOf(answer)).toMatchObject({ code: "gone", guidance: expect.any(String) });
  }
});
