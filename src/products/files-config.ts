/**
 * The configuration of the `files` product: a tree of plain files on each node, backed up as it
 * lies. What is said here is what the reference page and every error message say.
 */
import { z } from "zod";
import { pathField } from "../base/fields.ts";

const globs = (description: string) =>
  z
    .array(z.string().min(1).meta({ expected: "a pattern such as `**/*.log`" }))
    .max(1000)
    .optional()
    .meta({ description });

/** The `product` section where `type` is `files`. */
export const filesConfigSchema = z
  .strictObject({
    type: z.literal("files").meta({ description: "A tree of plain files on each node." }),
    root: pathField().meta({
      description: "The folder to back up. `{node}` becomes the node's name.",
    }),
    volume: z
      .string()
      .regex(/^[A-Za-z0-9._-]{1,64}$/)
      .default("root")
      .meta({
        expected: "up to 64 letters, digits, dots, dashes and underscores",
        description:
          "A name for the file system that holds `root`. Change it when a new disk takes the place " +
          "of the old one: device numbers change at reboots, and say nothing.",
      }),
    include: globs("Patterns, relative to `root`, of what is backed up. Everything, if left out."),
    exclude: globs("Patterns of what is left out; wins over `include`."),
    unreadable: z
      .enum(["incomplete", "fail"])
      .default("incomplete")
      .meta({
        description:
          "What a file that cannot be read does: the backup goes on and is marked incomplete, or " +
          "it fails.",
      }),
    appendOnly: globs(
      "Patterns of files whose format only ever grows at the end. When they grew, only the tail is " +
        "read. Preallocated logs are not such files.",
    ),
    immutable: globs(
      "Patterns of files that never change once they are there. They are not linked aside when they " +
        "are known already.",
    ),
  })
  .meta({ title: "files" });

/** What the `files` product is given, `{node}` replaced. */
export type FilesConfig = z.infer<typeof filesConfigSchema>;
