/**
 * How the configuration names an etcd, shared by every product that speaks with one, and the settings
 * of the plain `etcd` product. What is said here is what the reference page and every error message
 * say.
 */
import { z } from "zod";
import { durationField, pathField, secretField } from "../../base/fields.ts";

const endpoint = z
  .string()
  .transform((text) => text.replace(/\/$/, ""))
  .refine((text) => /^https?:\/\/[^\s/?#@]+:\d{1,5}$/.test(text))
  .meta({ expected: "http://host:2379 or https://host:2379" });

const tlsSchema = z
  .strictObject({
    ca: pathField().optional().meta({
      description: "PEM file of the authority of etcd's certificate, where it is your own.",
    }),
    certificate: pathField().optional().meta({
      description: "PEM file of a client certificate, where etcd asks for one; with `key`.",
    }),
    key: pathField().optional().meta({ description: "PEM file of the client certificate's key." }),
  })
  .refine((tls) => (tls.certificate === undefined) === (tls.key === undefined))
  .optional()
  .meta({
    expected: "`certificate` and `key` together, or neither",
    description: "TLS to etcd. The endpoints must then begin with https://.",
  });

const userSchema = z
  .strictObject({
    name: z.string().min(1).max(255).meta({ description: "The user's name in etcd." }),
    password: secretField().meta({
      description: "The password: text, `{env: NAME}` or `{file: PATH}`.",
    }),
  })
  .optional()
  .meta({ description: "The user to be, where etcd's authentication is enabled." });

/** How to reach an etcd: `openEtcd` takes what comes out. */
export const etcdConnectionSchema = z
  .strictObject({
    endpoints: z
      .array(endpoint)
      .min(1)
      .max(32)
      .meta({ description: "The client addresses of etcd's members, asked in turn." }),
    tls: tlsSchema,
    user: userSchema,
    requestTimeout: durationField({ min: 100, max: 600_000 })
      .prefault("10s")
      .meta({ description: "How long one endpoint may take for one request." }),
  })
  .transform(({ requestTimeout, ...rest }) => ({ ...rest, requestTimeoutMs: requestTimeout }));

/** How to reach an etcd, as the configuration says. */
export type EtcdConnection = z.infer<typeof etcdConnectionSchema>;

const keys = z
  .array(z.string().min(1).max(1024).meta({ expected: "a prefix that ends in `/`, or one key" }))
  .min(1)
  .max(1000)
  .optional();

/** The `product` section where `type` is `etcd`. */
export const etcdConfigSchema = z
  .strictObject({
    type: z.literal("etcd").meta({
      description: "An etcd cluster: a snapshot of it, or the keys below some prefixes.",
    }),
    root: pathField().meta({
      description:
        "A folder on each node, for what is read from etcd until it is stored, and for what a " +
        "restore puts back. `{node}` becomes the node's name.",
    }),
    etcd: etcdConnectionSchema.meta({ description: "How etcd is reached." }),
    prefixes: keys.meta({
      description:
        "What to back up: prefixes that end in `/`, and single keys. Keys with a lease are left " +
        "out. A snapshot of the whole database, if left out.",
    }),
    extra: z
      .enum(["refuse", "delete", "keep"])
      .default("refuse")
      .meta({
        description:
          "What a restore of prefixes does with keys below them that the backup does not have: it " +
          "is refused, deletes them, or keeps them.",
      }),
    snapshotTimeout: durationField({ min: 1_000, max: 86_400_000 }).prefault("1h").meta({
      description: "How long a snapshot may take to come.",
    }),
  })
  .meta({ title: "etcd" });

/** What the `etcd` product is given, `{node}` replaced. */
export type EtcdConfig = z.infer<typeof etcdConfigSchema>;
