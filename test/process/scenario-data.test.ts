/**
 * The scenario works on copies of folders that it does not own, such as caches full of symbolic links
 * to themselves: whatever lies behind a link must stay as it is.
 */
import { expect, test } from "bun:test";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  addOddities,
  changeFiles,
  linkAndUnlink,
  listUnits,
  spread,
} from "../../scripts/scenario-data.ts";
import { compareTrees, recordTree } from "../../scripts/tree-comparison.ts";

test("the scenario changes its own copies, and nothing behind a symbolic link", () => {
  const folder = fs.mkdtempSync(join(tmpdir(), "astacus-scenario-data-"));
  try {
    const source = join(folder, "source");
    fs.mkdirSync(join(source, "real/deep"), { recursive: true });
    for (let index = 0; index < 300; index += 1) {
      fs.writeFileSync(join(source, `real/deep/file-${index}`), `content ${index}\n`);
    }
    fs.symlinkSync(join(source, "real"), join(source, "to-folder"));
    fs.symlinkSync(join(source, "real/deep/file-1"), join(source, "to-file"));
    fs.linkSync(join(source, "real/deep/file-2"), join(source, "real/second-name"));
    const before = recordTree(source).record;
    const root = join(folder, "root");
    spread(listUnits([source]), [root]);
    addOddities(root);
    const copied = recordTree(root).record;
    for (let round = 1; round < 10; round += 1) changeFiles(root, round);
    linkAndUnlink(root);
    expect(compareTrees(before, recordTree(source).record)).toEqual([]);
    expect(compareTrees(copied, recordTree(root).record).length).toBeGreaterThan(20);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
});
