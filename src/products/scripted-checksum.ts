/**
 * The toy's own checksums: a checkpoint says the Adler-32 of the data that it speaks for. A backup
 * holds what it reads against them, and a deep verification what is stored.
 */
import { z } from "zod";
import { AppError } from "../base/error.ts";
import type { FileSystem } from "../base/doors.ts";
import type { Problem } from "../cas/write/volume-source.ts";
import { Adler32 } from "./m3/adler32.ts";
import type { ShareVerifier, StoredFile } from "./share-verifier.ts";
import { readText } from "./scripted-registry.ts";

const CHECKPOINT_SUFFIX = ".checkpoint";
const DATA_SUFFIX = ".data";

/** What a backup shows the toy's files to. */
export const TOY_CHECK = "adler32";

/** Loose: a toy of old has no sums. */
const checkpointSchema = z.looseObject({ sum: z.int().min(0).optional() });

/** True for what a checkpoint has the sum of. */
export function hasSum(path: string): boolean {
  return path.endsWith(DATA_SUFFIX);
}

/** The name of the checkpoint that speaks for a data file. */
export function checkpointOf(path: string): string {
  return path.slice(0, -DATA_SUFFIX.length) + CHECKPOINT_SUFFIX;
}

/** What is wrong with a data file that was read, by the checkpoint that lies at `checkpoint`. */
export function judgeSum(
  files: FileSystem,
  checkpoint: string,
  found: { readonly path: string; readonly sum: unknown },
): Problem | undefined {
  return judge(readText(files, checkpoint), found);
}

/** Holds each stored data file against its checkpoint, which sorts before it. */
export const verifyScriptedShare: ShareVerifier = async function* verifyScriptedShare({ volumes }) {
  for (const volume of volumes) {
    let checkpoint: { readonly path: string; readonly text: string } | undefined;
    for await (const file of volume.files()) {
      if (file.path.endsWith(CHECKPOINT_SUFFIX)) {
        checkpoint = { path: file.path, text: await textOf(file) };
      } else if (hasSum(file.path) && checkpoint?.path === checkpointOf(file.path)) {
        const problem = judge(checkpoint.text, { path: file.path, sum: await sumOf(file) });
        if (problem !== undefined) yield { ...problem, path: `${volume.name}/${file.path}` };
      }
    }
  }
};

function judge(
  checkpoint: string,
  { path, sum }: { readonly path: string; readonly sum: unknown },
): Problem | undefined {
  const wanted = parseCheckpoint(checkpoint).sum;
  if (wanted === undefined || wanted === sum) return undefined;
  const message = `Its Adler-32 is ${String(sum)}, its checkpoint says ${wanted}.`;
  return { path, kind: "damaged", message };
}

function parseCheckpoint(text: string): z.infer<typeof checkpointSchema> {
  const parsed = checkpointSchema.safeParse(JSON.parse(text));
  if (parsed.success) return parsed.data;
  throw new AppError("damaged", `This is no checkpoint: ${z.prettifyError(parsed.error)}`);
}

async function textOf(file: StoredFile): Promise<string> {
  return new TextDecoder().decode(Buffer.concat(await Array.fromAsync(file.read({}))));
}

async function sumOf(file: StoredFile): Promise<number> {
  const sum = new Adler32();
  for await (const bytes of file.read({})) sum.update(bytes);
  return sum.value;
}
