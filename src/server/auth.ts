/**
 * Who may do what. With tokens in the configuration every request but those for health carries one
 * (`Authorization: Bearer …`), and nodes know each other by theirs. Without tokens the server hears
 * this machine only, and refuses what a web page could send from a browser on it: a foreign `Origin`,
 * or a `Host` that is not a name of this machine (DNS rebinding).
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { AppError } from "../base/error.ts";
import type { Secret } from "../base/secret.ts";
import { isLoopback } from "./config-checks.ts";

/** What a route asks for. `open` is for everybody who reaches the port. */
export type Access = "open" | "read" | "admin" | "node";

/** The tokens of the configuration; `node` is `admin` where the file names none. */
export type Tokens = {
  readonly admin: Secret | undefined;
  readonly read: Secret | undefined;
  readonly node: Secret | undefined;
};

/** Throws AppError `permission` unless the request may use a route that asks for `access`. */
export function checkAccess(request: Request, access: Access, tokens: Tokens): void {
  if (tokens.admin === undefined) return checkLocal(request);
  if (access === "open") return;
  const given = bearerOf(request);
  if (given === undefined) {
    throw new AppError("permission", "This request carries no token.", {
      guidance: "Set ASTACUS_TOKEN, or send `Authorization: Bearer TOKEN` (docs/http.md).",
      context: { status: 401, reason: "token-missing" },
    });
  }
  const roles = rolesOf(given, tokens);
  if (roles.size === 0) {
    throw new AppError("permission", "The token is not one that this server knows.", {
      guidance: "Compare it with `tokens` in the server's configuration.",
      context: { status: 401, reason: "token-unknown" },
    });
  }
  if (roles.has(access)) return;
  throw new AppError("permission", `The token may not do this; it takes one for ${access}.`, {
    guidance: "Use the admin token of the configuration (for nodes: its node token).",
    context: { status: 403, reason: "token-too-weak" },
  });
}

/** What the bearer of a token may do. Every token is compared, in constant time. */
function rolesOf(given: string, tokens: Tokens): ReadonlySet<Access> {
  const isAdmin = isSame(given, tokens.admin);
  const isRead = isSame(given, tokens.read);
  const isNode = isSame(given, tokens.node);
  const roles = new Set<Access>();
  if (isAdmin) roles.add("admin").add("read");
  if (isRead) roles.add("read");
  if (isNode) roles.add("node");
  return roles;
}

/** Hashes have one length, so that neither the length nor the first wrong letter shows in time. */
function isSame(given: string, secret: Secret | undefined): boolean {
  const hash = (text: string): Buffer => createHash("sha256").update(text).digest();
  const known = secret?.reveal() ?? "";
  return timingSafeEqual(hash(given), hash(known)) && known !== "";
}

function bearerOf(request: Request): string | undefined {
  return /^Bearer +(\S+) *$/i.exec(request.headers.get("authorization") ?? "")?.[1];
}

function checkLocal(request: Request): void {
  const host = request.headers.get("host") ?? "";
  const origin = request.headers.get("origin");
  if (!isLocalHost(host)) throw foreign("Host", host);
  if (origin !== null && !isOwnOrigin(origin, host)) throw foreign("Origin", origin);
}

function isLocalHost(host: string): boolean {
  const address = `http://${host}`;
  return host !== "" && URL.canParse(address) && isLoopback(new URL(address).hostname);
}

function isOwnOrigin(origin: string, host: string): boolean {
  return URL.canParse(origin) && new URL(origin).host === host.toLowerCase();
}

function foreign(header: string, value: string): AppError {
  const shown = value.slice(0, 100);
  return new AppError("permission", `A request with the ${header} ${shown} is refused here.`, {
    guidance:
      "Without `tokens` in its configuration this server answers its own machine only, under the " +
      "names localhost, 127.0.0.1 and [::1].",
    context: { status: 403, reason: "foreign-request" },
  });
}
