/**
 * A folder of one test on the real disk, removed with all it holds when it is disposed of.
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Makes the folder. */
export function temporaryFolder(): Disposable & { readonly path: string } {
  const path = fs.mkdtempSync(join(tmpdir(), "astacus-test-"));
  return {
    path,
    [Symbol.dispose]: () => fs.rmSync(path, { recursive: true, force: true }),
  };
}
