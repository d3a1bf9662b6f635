/**
 * The configuration file as a schema: every key with its kind, default and meaning. It is the only
 * description there is; docs/configuration.md, the hints in error messages and the types are made
 * from it. Nothing here touches the world: secrets are resolved before (config-secrets.ts), and what
 * spans several keys is checked beside it (config-checks.ts).
 */
import { z } from "zod";
import { durationField, pathField, secretField, sizeField } from "../base/fields.ts";
import { productSchema } from "./config-products.ts";
import { retentionRules } from "./config-retention.ts";
import { httpAddress, nameField } from "./config-names.ts";
import { encryptionSchema } from "./config-encryption.ts";
import { repairSchema, scrubSchema } from "./config-scrub.ts";
import { siteSchema } from "./config-sites.ts";

/** The port of every node, where nothing else is said. */
export const DEFAULT_PORT = 5515;

const NODE_COUNT_MAX = 64;
const SITE_COUNT_MAX = 16;

// With its port: the one that a browser would assume is never the one that is meant.
const nodeAddress = () =>
  httpAddress()
    .refine((text) => /:\d+\/?$/.test(text))
    .meta({
      expected: `http://host:${DEFAULT_PORT} or https://host:${DEFAULT_PORT}`,
      kind: "address",
    });

const count = (min: number, max: number) => z.int().min(min).max(max);

const listenHost = z
  .string()
  .min(1)
  .optional()
  .meta({
    expected: "a host name or an IP address",
    description:
      "The address to listen on. Without `tokens` it is 127.0.0.1, and must be a loopback address; " +
      "with them, the host of the node's address.",
  });

const listenPort = count(0, 65_535)
  .optional()
  .meta({
    description: `The port to listen on: that of the node's address, or ${DEFAULT_PORT}; 0 takes a free one.`,
  });

const tlsSchema = z
  .strictObject({
    certificate: pathField().meta({ description: "PEM file of the certificate and its chain." }),
    key: pathField().meta({ description: "PEM file of the private key." }),
    ca: pathField().optional().meta({
      description:
        "PEM file of the authority by which nodes know each other, where it is your own.",
    }),
  })
  .meta({ description: "Serve HTTPS. The nodes' addresses must then begin with https://." });

const nodeSchema = z.strictObject({
  name: nameField().meta({ description: "The node's name: unique, and the same for ever." }),
  address: nodeAddress()
    .optional()
    .meta({
      description:
        `Where the other nodes reach it. May be left out where there is one node: ` +
        `http://127.0.0.1:${DEFAULT_PORT}.`,
    }),
  zone: nameField().optional().meta({ description: "Its availability zone." }),
  listen: z
    .strictObject({ host: listenHost, port: listenPort })
    .optional()
    .meta({ description: "In place of the top-level `listen`, for this node." }),
  data: pathField().optional().meta({
    description: "In place of the top-level `data`, for this node.",
  }),
  root: pathField().optional().meta({
    description: "In place of `product.root`, for this node.",
  }),
});

const retentionSchema = z
  .strictObject({
    ...retentionRules(),
    undoWindow: durationField().prefault("7d").meta({
      description: "How long a forgotten backup can be had back with `undelete`.",
    }),
  })
  .prefault({})
  .meta({
    description:
      "Which backups `cleanup` keeps. Each rule can only keep; a backup goes when none keeps it. " +
      "Ages count back from the newest complete backup, not from the clock. The newest complete " +
      "backup and pinned ones are never dropped.",
  });

const backupSchema = z
  .strictObject({
    attempts: count(1, 100).default(2).meta({
      description: "How often a backup is tried before it is given up.",
    }),
    workers: count(0, 64)
      .default(2)
      .meta({
        description:
          "Threads that read, hash and compress on each node, as many as there is work for: one where " +
          "files are tiny. 0 works in the server's own.",
      }),
    chunkSize: z.enum(["64KiB", "128KiB", "256KiB", "1MiB"]).default("256KiB").meta({
      description: "The mean size of chunks. Read only by `site init`: the repository keeps it.",
    }),
    packSize: sizeField({ min: 1024 ** 2, max: 48 * 1024 ** 2 })
      .prefault("8MiB")
      .meta({
        description: "How large packs, the objects that hold chunks, are made.",
      }),
    keepEvery: sizeField({ min: 64 * 1024 ** 2 })
      .prefault("8GiB")
      .meta({
        description:
          "A long backup secures what it has sent after so many bytes, or after 500,000 chunks if that " +
          "is earlier; at most this is lost when it is interrupted.",
      }),
    minimumFreeSpace: sizeField().prefault("512MiB").meta({
      description:
        "Below this much free space on the database's disk a backup gives up, rather than fill it.",
    }),
    rereadShare: z
      .number()
      .min(0)
      .max(1)
      .default(0)
      .meta({
        description:
          "The share of unchanged files that each backup reads again all the same, against silent " +
          "damage: 0.01 reads each about once in a hundred backups.",
      }),
    lookUpEvery: count(1, 10_000).default(8).meta({
      description:
        "Each so many backups, every chunk is looked up anew, so that lists of packs can shrink.",
    }),
    compression: z
      .strictObject({
        level: count(1, 19).default(1).meta({
          description: "The level of zstd: higher is smaller and slower.",
        }),
      })
      .prefault({})
      .meta({ description: "How chunks are compressed. What does not shrink is stored as it is." }),
    degraded: z.boolean().default(false).meta({
      description:
        "Whether a backup may go on without nodes that do not answer. It is then marked incomplete.",
    }),
    mirrorPatience: durationField({ min: 1000 })
      .prefault("60s")
      .meta({
        description:
          "How long a mirror may take for one pack. One that is slower is left out of the backup, and " +
          "gets what it lacks afterwards.",
      }),
    nodeTimeout: durationField({ min: 1000 }).prefault("5m").meta({
      description: "How long a node may say nothing before it counts as gone.",
    }),
  })
  .prefault({})
  .meta({ description: "How backups are made." });

const restoreSchema = z
  .strictObject({
    owner: z
      .enum(["recorded", "parent", "none"])
      .default("recorded")
      .meta({
        description:
          "Who owns restored files: who owned them, who owns the folder they are put in, or whoever " +
          "the server runs as.",
      }),
    concurrency: count(1, 64).default(4).meta({
      description: "How many packs a node reads at the same time.",
    }),
  })
  .prefault({})
  .meta({ description: "How restores are made." });

const limitsSchema = z
  .strictObject({
    memory: sizeField({ min: 32 * 1024 ** 2 })
      .prefault("128MiB")
      .meta({
        description:
          "What all buffers of a node may take together, whatever the size of the store.",
      }),
    requestBody: sizeField({ min: 4096, max: 64 * 1024 ** 2 })
      .prefault("1MiB")
      .meta({
        description: "The largest request that the server reads.",
      }),
    requestTimeout: durationField({ min: 100 }).prefault("30s").meta({
      description: "How long a short request from node to node may take.",
    }),
    leaseTime: durationField({ min: 1000 })
      .prefault("60s")
      .meta({
        description:
          "How long a node stays reserved for an operation whose coordinator is silent. Time in which " +
          "the node's own process stood still does not count.",
      }),
  })
  .prefault({})
  .meta({ description: "Limits of the server." });

/** The whole file. */
export const configSchema = z.strictObject({
  cluster: nameField().meta({
    description:
      "The cluster's name. Several clusters may share a site; each lists its own backups.",
  }),
  nodes: z
    .array(nodeSchema)
    .min(1)
    .max(NODE_COUNT_MAX)
    .optional()
    .meta({
      description:
        "All nodes of the cluster, so that the same file can lie on each. A node finds itself by " +
        "`--node`, by `ASTACUS_NODE`, or by its host name. Left out: one node, named like its host.",
    }),
  data: pathField()
    .default("/var/lib/astacus")
    .meta({
      description:
        "The folder of the server's own files: a cache, and the operations under way. Each node " +
        "needs its own; `{node}` becomes the node's name.",
    }),
  listen: z
    .strictObject({ host: listenHost, port: listenPort, tls: tlsSchema.optional() })
    .prefault({})
    .meta({ description: "Where the server listens." }),
  tokens: z
    .strictObject({
      admin: secretField().meta({
        description: "May do everything. At least 16 characters, as for the other two.",
      }),
      read: secretField().optional().meta({ description: "May list, show and verify." }),
      node: secretField().optional().meta({
        description: "With which nodes know each other; `admin` if left out.",
      }),
    })
    .optional()
    .meta({
      description:
        "Bearer tokens of the HTTP interface. Without them the server listens on this machine only.",
    }),
  product: productSchema,
  sites: z.array(siteSchema).min(1).max(SITE_COUNT_MAX).meta({
    description: "Where backups are kept. Each site holds a complete repository by itself.",
  }),
  primary: nameField().optional().meta({
    description: "The site where operations start; the first one, if left out.",
  }),
  encryption: encryptionSchema,
  retention: retentionSchema,
  backup: backupSchema,
  restore: restoreSchema,
  repair: repairSchema,
  scrub: scrubSchema,
  limits: limitsSchema,
  log: z
    .strictObject({
      level: z.enum(["debug", "info", "warn", "error"]).default("info").meta({
        description: "The least important messages that are still written.",
      }),
    })
    .prefault({})
    .meta({ description: "What the server writes to its log." }),
});

/** The file as read: defaults filled in, units resolved, secrets wrapped. */
export type ParsedFile = z.output<typeof configSchema>;
