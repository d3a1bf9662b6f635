/**
 * The configuration of the `m3` product: where a node's M3 keeps its files, where the cluster's state
 * lies in etcd, and which M3 instance each node of Astacus is. One file may lie on all nodes.
 */
import { z } from "zod";
import { pathField } from "../../base/fields.ts";
import { etcdConnectionSchema } from "../etcd/etcd-config.ts";

/** A part of an etcd key: it must not reach out of its place among the keys. */
const keyPart = (expected: string) =>
  z
    .string()
    .regex(/^[^/\s](?:[^\s]*[^/\s])?$/)
    .meta({ expected });

const instanceSchema = z.strictObject({
  id: z.string().min(1).max(255).optional().meta({
    description:
      "The instance's id in the placement (M3's `hostID`). The node's name, if left out.",
  }),
  endpoint: z
    .string()
    .regex(/^\S+:\d{1,5}$/)
    .optional()
    .meta({
      expected: "HOST:PORT",
      description:
        "Where M3 listens on this node (`db.listenAddress`), for the placement that a restore " +
        "writes. As in the backup, if left out.",
    }),
  hostname: z.string().min(1).max(255).optional().meta({
    description: "Its host name in the placement. The host of `endpoint`, if left out.",
  }),
  httpPorts: z
    .strictObject({ node: z.int().min(1).max(65_535), cluster: z.int().min(1).max(65_535) })
    .optional()
    .meta({ description: "Ports of its JSON APIs, where they differ from `httpPorts`." }),
  isolationGroup: z.string().min(1).max(255).optional().meta({
    description: "Its isolation group in the placement. As in the backup, if left out.",
  }),
});

/** The `product` section where `type` is `m3`. */
export const m3ConfigSchema = z
  .strictObject({
    type: z.literal("m3").meta({
      description: "An M3 cluster: the files of each node, and the cluster's state in etcd.",
    }),
    root: pathField().meta({
      description:
        "The folder of M3's files (`db.filesystem.filePathPrefix`). `{node}` becomes the node's name.",
    }),
    captures: pathField()
      .optional()
      .meta({
        description:
          "A folder on the same file system, for the hard links that hold files during a backup. " +
          "`.astacus` in `root`, if left out. `{node}` becomes the node's name.",
      }),
    etcd: etcdConnectionSchema.meta({ description: "The etcd that M3 uses." }),
    environment: keyPart("an environment's name, as in M3's `discovery`")
      .default("default_env")
      .meta({
        description: "M3's `env`. A restore writes its keys, also for a backup of another one.",
      }),
    zone: keyPart("a zone's name, as in M3's `discovery`").default("embedded").meta({
      description: "M3's `zone`: instances of a restored placement are in it.",
    }),
    service: keyPart("a service's name, as in M3's `discovery`").default("m3db").meta({
      description: "M3's `service`: the name of its placement.",
    }),
    instances: z.record(z.string(), instanceSchema).default({}).meta({
      description: "Which M3 instance each node is, by the node's name.",
    }),
    httpPorts: z
      .strictObject({
        node: z.int().min(1).max(65_535).default(9002).meta({
          description: "The port of `db.httpNodeListenAddress`.",
        }),
        cluster: z.int().min(1).max(65_535).default(9003).meta({
          description: "The port of `db.httpClusterListenAddress`.",
        }),
      })
      .prefault({})
      .meta({
        description:
          "Ports of M3's two JSON APIs, which `verify --database` asks, on the hosts that the " +
          "placement names.",
      }),
    copies: z
      .union([z.literal("all"), z.int().min(1).max(10)])
      .default("all")
      .meta({
        expected: "`all` or a number of copies",
        description:
          "From how many replicas every shard must have been taken, available, for a backup to " +
          "count as whole. With fewer than `all` a backup without some is marked degraded. Needs " +
          "`backup.degraded`, or a node that does not answer ends the backup.",
      }),
    captureTries: z.int().min(1).max(1000).default(20).meta({
      description: "How often a node's capture begins again when M3 moves on beneath it.",
    }),
  })
  .meta({ title: "m3" });

/** What the `m3` product is given, `{node}` replaced. */
export type M3Config = z.infer<typeof m3ConfigSchema>;
