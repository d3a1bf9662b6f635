/**
 * Reads a configuration file with what this machine knows: its environment, its name, its files.
 * Loaded only by commands that need it, since it brings the schemas along.
 */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { resolve } from "node:path";
import { AppError } from "../base/error.ts";
import { getErrnoCode } from "../base/errno.ts";
import type { Config, ConfigInput, SharedConfig } from "../server/config.ts";
import { parseConfig, parseSharedConfig } from "../server/config.ts";

/** The file as a node of the cluster reads it. */
export function loadConfig(file: string, nodeName?: string): Config {
  return parseConfig({
    ...inputOf(file),
    ...(nodeName === undefined ? {} : { nodeName }),
  });
}

/** The file as any machine may read it. */
export function loadSharedConfig(file: string): SharedConfig {
  return parseSharedConfig(inputOf(file));
}

/** Reads a text file; throws AppError `config` where it cannot be. */
export function readTextFile(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (thrown) {
    const code = getErrnoCode(thrown) ?? "unknown";
    throw new AppError("config", `The file ${file} cannot be read (${code}).`, {
      guidance: "Check its path, and that this user may read it.",
      context: { file, code },
      cause: thrown,
    });
  }
}

function inputOf(file: string): ConfigInput {
  return {
    text: readTextFile(file),
    fileName: resolve(file),
    environment: process.env,
    readFile: (path) => readFileSync(path, "utf8"),
    hostName: hostname(),
  };
}
