/**
 * Certificates for servers of tests on loopback: an authority, a server and a client, made by openssl
 * once in a directory and good for ten years. The server's also serves as a client's, because etcd's
 * JSON API is a client of etcd itself.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import type { Missing } from "./missing.ts";

/** Paths of PEM files that a client shows. */
export type ClientCertificate = {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
};

/** What a client shows, and the options of etcd that make it ask for it. */
export type Certificates = {
  readonly client: ClientCertificate;
  readonly serverFlags: readonly string[];
};

/** Makes the files that are not there yet. */
export async function makeCertificates(directory: string): Promise<Certificates | Missing> {
  const file = (name: string) => join(directory, name);
  if (!fs.existsSync(file("client.crt"))) {
    if (Bun.which("openssl") === null) return { missing: "openssl" };
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
    const names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
    const uses = ["-addext", "extendedKeyUsage=serverAuth,clientAuth"];
    await makePair(directory, "ca", []);
    const signed = ["-CA", file("ca.crt"), "-CAkey", file("ca.key")];
    await makePair(directory, "server", [...signed, ...names, ...uses]);
    await makePair(directory, "client", [...signed, "-addext", "extendedKeyUsage=clientAuth"]);
  }
  return {
    client: {
      caFile: file("ca.crt"),
      certFile: file("client.crt"),
      keyFile: file("client.key"),
    },
    serverFlags: [
      `--cert-file=${file("server.crt")}`,
      `--key-file=${file("server.key")}`,
      `--trusted-ca-file=${file("ca.crt")}`,
      "--client-cert-auth",
    ],
  };
}

/** No certificate has a CN: etcd's JSON API refuses one when users are on, its own included. */
async function makePair(directory: string, name: string, more: readonly string[]): Promise<void> {
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const files = ["-keyout", join(directory, `${name}.key`), "-out", join(directory, `${name}.crt`)];
  const words = ["-x509", ...key, ...files, "-days", "3650", "-subj", `/O=${name}`, ...more];
  const child = Bun.spawn(["openssl", "req", ...words], { stdout: "ignore", stderr: "pipe" });
  const talk = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) throw new Error(`openssl: ${talk.trim().slice(-300)}`);
}
