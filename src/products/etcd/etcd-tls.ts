/**
 * The PEM files of a TLS connection, read through the file system's door and looked at before they are
 * used: what the runtime says of a bad one does not name it.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import type { FileSystem } from "../../base/doors.ts";
import { AppError } from "../../base/error.ts";
import { pathFromText } from "../../base/path.ts";

/** Paths of PEM files, as text. */
export type EtcdTlsFiles = {
  readonly ca?: string | undefined;
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
};

/** What `fetch` takes. */
export type EtcdTls = { readonly ca?: string; readonly cert?: string; readonly key?: string };

const PEM_SIZE_BYTES_MAX = 1024 * 1024;

/** Reads the files; `config` with the path of the one that is not what it should be. */
export function readEtcdTls(files: EtcdTlsFiles, fileSystem: FileSystem): EtcdTls {
  const { ca, certificate, key } = files;
  const tls = {
    ...(ca === undefined ? {} : { ca: readPem(ca, fileSystem) }),
    ...(certificate === undefined ? {} : { cert: readPem(certificate, fileSystem) }),
    ...(key === undefined ? {} : { key: readPem(key, fileSystem) }),
  };
  if (tls.ca !== undefined) parse(ca ?? "", "certificate", () => new X509Certificate(tls.ca ?? ""));
  if (tls.cert === undefined || tls.key === undefined) return tls;
  const own = parse(certificate ?? "", "certificate", () => new X509Certificate(tls.cert ?? ""));
  const secret = parse(key ?? "", "private key", () => createPrivateKey(tls.key ?? ""));
  if (!own.checkPrivateKey(secret)) {
    throw new AppError("config", `The key ${key} is not that of the certificate ${certificate}.`, {
      guidance: "Give `tls.certificate` and `tls.key` of one pair.",
    });
  }
  return tls;
}

function parse<Value>(path: string, what: string, read: () => Value): Value {
  try {
    return read();
  } catch (cause) {
    throw new AppError("config", `The file ${path} holds no ${what} in PEM form.`, {
      guidance: "Correct its path under `tls`, or the file.",
      cause,
    });
  }
}

function readPem(path: string, fileSystem: FileSystem): string {
  const handle = fileSystem.open(pathFromText(path), "r");
  try {
    const { sizeBytes } = fileSystem.stat(handle);
    if (sizeBytes > PEM_SIZE_BYTES_MAX) {
      throw new AppError("config", `The file ${path} is too large for a PEM file.`, {
        guidance: "Correct its path under `tls`.",
      });
    }
    const bytes = new Uint8Array(sizeBytes);
    const length = fileSystem.read(handle, bytes, 0);
    return Buffer.from(bytes.subarray(0, length)).toString("latin1");
  } finally {
    fileSystem.close(handle);
  }
}
