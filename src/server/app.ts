/**
 * The HTTP application: every request passes the check of who sent it, then its schema, then one
 * call; every error is rendered here. No route has a way around this.
 */
import { Hono } from "hono";
import type { Context } from "hono";
import { AppError, toAppError } from "../base/error.ts";
import { nearest } from "../base/nearest.ts";
import { checkAccess } from "./auth.ts";
import { errorResponse } from "./error-answer.ts";
import { renderOpenApi } from "./openapi.ts";
import { addOriginalRoutes } from "./original-routes.ts";
import type { Route } from "./route.ts";
import { mustParse, readJson } from "./route.ts";
import { ROUTES } from "./routes.ts";
import type { ListenerBindings, ServerContext } from "./server-context.ts";

type Environment = { Bindings: ListenerBindings };

/** The application over a context; `fetch` of it answers requests. */
export function createApp(context: ServerContext): Hono<Environment> {
  const app = new Hono<Environment>();
  app.onError((thrown, c) => {
    const error = toAppError(thrown);
    const fields = { method: c.req.method, path: c.req.path, error };
    if (error.kind === "internal") context.log.error("a request failed", fields);
    else context.log.debug("a request was answered with an error", fields);
    return errorResponse(error);
  });
  app.use(async (c, next) => {
    const startedMs = context.clock.monotonic();
    await next();
    context.log.debug("request", {
      method: c.req.method,
      path: c.req.path,
      status: c.res.status,
      durationMs: Math.round(context.clock.monotonic() - startedMs),
    });
  });
  for (const route of ROUTES) {
    app.on(route.method, route.path, async (c) => await answer(route, c, context));
  }
  app.get("/openapi.json", (c) => {
    checkAccess(c.req.raw, "open", context.config().tokens);
    return Response.json(renderOpenApi(ROUTES, context.version));
  });
  addOriginalRoutes(app, context);
  app.notFound((c) => {
    checkAccess(c.req.raw, "open", context.config().tokens);
    return errorResponse(noRoute(c));
  });
  return app;
}

async function answer(
  route: Route,
  c: Context<Environment>,
  context: ServerContext,
): Promise<Response> {
  const request = c.req.raw;
  checkAccess(request, route.access, context.config().tokens);
  const { limits } = context.config();
  const body =
    route.body === undefined
      ? undefined
      : await readJson(request, {
          sizeBytes: route.bodyBytesMax ?? limits.requestBodyBytes,
          timeoutMs: limits.requestTimeoutMs,
          clock: context.clock,
        });
  const outcome = await route.run({
    context,
    request,
    parameters: c.req.param() as Readonly<Record<string, string>>,
    body: route.body === undefined ? undefined : mustParse(route.body, body, "body"),
    query: route.query === undefined ? {} : mustParse(route.query, c.req.query(), "query"),
    signal: request.signal,
    takeYourTime: () => c.env?.takeYourTime?.(request),
  });
  if (outcome instanceof Response) return outcome;
  return Response.json(outcome, { status: route.status ?? 200 });
}

function noRoute(c: Context<Environment>): AppError {
  const { method, path } = c.req;
  const known = ROUTES.map((route) => route.path);
  const others = ROUTES.filter((route) => matches(route.path, path)).map((route) => route.method);
  if (others.length > 0) {
    return new AppError("usage", `${path} takes ${others.join(" or ")}, not ${method}.`, {
      context: { status: 405, reason: "method-not-allowed" },
    });
  }
  const meant = nearest(path, known);
  const guidance =
    meant === undefined ? "/openapi.json lists what there is." : `Did you mean ${meant}?`;
  return new AppError("not-found", `There is nothing at ${path}.`, { guidance });
}

function matches(route: string, path: string): boolean {
  const parts = route.split("/");
  const given = path.split("/");
  return (
    parts.length === given.length &&
    parts.every((part, index) => part.startsWith(":") || part === given[index])
  );
}
