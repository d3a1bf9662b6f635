/**
 * The listener: one port for people, programs and other nodes. Everything about a connection is
 * bounded here: the size of a body, and how long a connection may be idle; Bun bounds the headers.
 */
import { AppError } from "../base/error.ts";
import { getErrnoCode } from "../base/errno.ts";
import type { ListenConfig } from "./config.ts";
import type { ListenerBindings } from "./server-context.ts";

/** What between nodes may be sent at most; routes for people have their own, smaller limit. */
const BODY_BYTES_MAX = 64 * 1024 * 1024;
/** A connection that says nothing for so long is closed; streams beat more often. */
const IDLE_SECONDS = 60;

/** A server that listens. */
export type Listener = {
  /** Where, with the port that was taken. */
  readonly url: string;
  readonly port: number;
  /** Takes no more requests; with `now` ends those under way too. */
  stop(now: boolean): Promise<void>;
};

type Handler = (request: Request, bindings: ListenerBindings) => Response | Promise<Response>;

/** Listens; throws AppError `conflict` where the port is taken. */
export function listen(config: ListenConfig, handler: Handler): Listener {
  const { host, port, tls } = config;
  try {
    const server = Bun.serve({
      hostname: host,
      port,
      maxRequestBodySize: BODY_BYTES_MAX,
      idleTimeout: IDLE_SECONDS,
      development: false,
      // Outside of development Bun would share the port with another server without a word.
      reusePort: false,
      fetch: (request, server) =>
        handler(request, { takeYourTime: (which) => server.timeout(which, 0) }),
      ...(tls === undefined
        ? {}
        : { tls: { cert: Bun.file(tls.certificate), key: Bun.file(tls.key) } }),
    });
    return {
      url: server.url.origin,
      port: server.port ?? port,
      stop: async (now) => await server.stop(now),
    };
  } catch (thrown) {
    throw listenError(config, thrown);
  }
}

function listenError(config: ListenConfig, thrown: unknown): AppError {
  const code = getErrnoCode(thrown) ?? "unknown";
  const place = `${config.host} port ${config.port}`;
  const context = { host: config.host, port: config.port, code };
  if (code === "EADDRINUSE") {
    return new AppError("conflict", `The port is in use: ${place}.`, {
      guidance: "Does another `astacus server` run here? Else set `listen.port`.",
      context,
      cause: thrown,
    });
  }
  if (code === "EACCES") {
    return new AppError("permission", `This user may not listen on ${place}.`, {
      guidance: "Ports below 1024 take a capability (CAP_NET_BIND_SERVICE).",
      context,
      cause: thrown,
    });
  }
  const why = thrown instanceof Error ? thrown.message : String(thrown);
  return new AppError("config", `Cannot listen on ${place}: ${why}`, {
    guidance: "Check `listen` in the configuration: the address must be one of this machine.",
    context,
    cause: thrown,
  });
}
