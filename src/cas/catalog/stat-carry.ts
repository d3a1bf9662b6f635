/**
 * Takes a stat cache from one catalog to another of the same node, row by row as it lies: numbers,
 * checksums and the backups that vouch stay the same. What was there before goes. Broken off in the
 * middle it leaves rows without a voucher at worst, which are looked up like any others, and is begun
 * anew. Memory: one batch of rows.
 */
import type { Clock } from "../../base/doors.ts";
import { guardRead } from "./catalog.ts";
import type { Catalog } from "./catalog.ts";
import { makeStatTables } from "./stat-cache.ts";

const BATCH_ROW_COUNT = 1000;

type StatRow = { volume: number; path: string; operation: number; value: Uint8Array };

/** Replaces the stat cache of `target` by that of `source`. */
export async function carryStatCache(
  source: Pick<Catalog, "database">,
  target: Pick<Catalog, "database">,
  options: { readonly clock: Clock; readonly signal?: AbortSignal },
): Promise<void> {
  const [from, to] = [source.database, target.database];
  makeStatTables(source);
  makeStatTables(target);
  to.transaction(() => {
    for (const table of ["row", "backup", "operation", "volume"]) {
      to.run(`DELETE FROM stat_${table}`);
    }
  })();
  await copyRows(source, target, options);
  const volumes = from
    .query<{ number: number; name: string }, []>("SELECT number, name FROM stat_volume")
    .all();
  const operations = from
    .query<{ number: number; operation: string }, []>(
      "SELECT number, operation FROM stat_operation",
    )
    .all();
  const backups = from
    .query<{ number: number; backup: string; checksum: Uint8Array }, []>(
      "SELECT number, backup, checksum FROM stat_backup",
    )
    .all();
  to.transaction(() => {
    const volume = to.query("INSERT INTO stat_volume (number, name) VALUES ($number, $name)");
    for (const row of volumes) volume.run(row);
    const operation = to.query(
      "INSERT INTO stat_operation (number, operation) VALUES ($number, $operation)",
    );
    for (const row of operations) operation.run(row);
    const backup = to.query(
      "INSERT INTO stat_backup (number, backup, checksum) VALUES ($number, $backup, $checksum)",
    );
    for (const row of backups) backup.run(row);
  })();
}

async function copyRows(
  source: Pick<Catalog, "database">,
  target: Pick<Catalog, "database">,
  { clock, signal }: { readonly clock: Clock; readonly signal?: AbortSignal },
): Promise<void> {
  const select = source.database.query<StatRow, [number, number, string, number]>(
    `SELECT volume, path, operation, value FROM stat_row
     WHERE volume > ? OR (volume = ? AND path > ?) ORDER BY volume, path LIMIT ?`,
  );
  const insert = target.database.query<null, [number, string, number, Uint8Array]>(
    "INSERT INTO stat_row (volume, path, operation, value) VALUES (?, ?, ?, ?)",
  );
  let [volume, path] = [-1, ""];
  for (;;) {
    const rows = guardRead(() => select.all(volume, volume, path, BATCH_ROW_COUNT));
    target.database.transaction(() => {
      for (const row of rows) insert.run(row.volume, row.path, row.operation, row.value);
    })();
    const last = rows.at(-1);
    if (last === undefined || rows.length < BATCH_ROW_COUNT) return;
    ({ volume, path } = last);
    await clock.sleep(0, signal);
  }
}
