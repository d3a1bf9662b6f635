/**
 * Sending what is named by its content: a name that is taken is as good if the bytes are the same.
 */
import { AppError } from "../../base/error.ts";
import { sha256Hex } from "../../base/hex.ts";
import type { Site, SiteCall } from "../../sites/site.ts";

/**
 * Sends an object; true if it was sent, false if it was there. AppError `conflict` with
 * `context.reason` "taken" if other bytes have this name.
 */
export async function putObject(
  site: Pick<Site, "name" | "location" | "put" | "head" | "get">,
  key: string,
  bytes: Uint8Array,
  options: SiteCall & { readonly sha256?: string } = {},
): Promise<boolean> {
  if ((await site.put(key, bytes, options)) === "created") return true;
  const call: SiteCall = options.signal === undefined ? {} : { signal: options.signal };
  const head = await site.head(key, call);
  const isSame =
    head?.sizeBytes === bytes.length &&
    (head.sha256 === undefined
      ? Buffer.compare((await site.get(key, call)) ?? new Uint8Array(), bytes) === 0
      : head.sha256 === (options.sha256 ?? sha256Hex(bytes)));
  if (isSame) return false;
  throw new AppError("conflict", `${key} at ${site.location} has other bytes.`, {
    guidance:
      "A damaged or foreign object has this name. Commit a note, and send it again: it gets " +
      "another birth, which is another name.",
    context: { reason: "taken", site: site.name, key },
  });
}
