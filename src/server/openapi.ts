/**
 * OpenAPI 3.1, rendered from the table of routes: what is documented is what is checked.
 */
import { z } from "zod";
import { errorAnswerSchema } from "./answer-schemas.ts";
import type { Route } from "./route.ts";

type Json = { readonly [key: string]: unknown };

/** The document for a table of routes. */
export function renderOpenApi(routes: readonly Route[], version: string): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const route of routes) {
    const path = route.path.replaceAll(/:([a-z]+)/gi, "{$1}");
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: renderRoute(route) };
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Astacus",
      version,
      description: "Backup and restore of clustered databases. docs/http.md says how to begin.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    paths,
    components: {
      schemas: { Error: jsonSchema(errorAnswerSchema, "output") },
      securitySchemes: { bearer: { type: "http", scheme: "bearer" } },
    },
  };
}

function renderRoute(route: Route): Json {
  const content =
    typeof route.answer === "string"
      ? { [route.answer]: { schema: { type: "string" } } }
      : { "application/json": { schema: jsonSchema(route.answer, "output") } };
  return {
    summary: route.summary,
    operationId: `${route.method} ${route.path}`.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-"),
    ...(route.access === "open" ? {} : { security: [{ bearer: [route.access] }] }),
    parameters: [...pathParameters(route.path), ...queryParameters(route.query)],
    ...(route.body === undefined
      ? {}
      : {
          requestBody: {
            required: false,
            content: { "application/json": { schema: jsonSchema(route.body, "input") } },
          },
        }),
    responses: {
      [String(route.status ?? 200)]: {
        description: "As asked",
        ...answerHeaders(route.answerHeaders),
        content,
      },
      default: {
        description: "An error: what is wrong and what to do",
        content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
      },
    },
  };
}

function answerHeaders(headers: Route["answerHeaders"]): Json {
  if (headers === undefined) return {};
  const rows = Object.entries(headers).map(([name, description]) => [
    name,
    { description, required: false, schema: { type: "string" } },
  ]);
  return { headers: Object.fromEntries(rows) as Json };
}

function pathParameters(path: string): Json[] {
  return [...path.matchAll(/:([a-z]+)/gi)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
  }));
}

function queryParameters(query: z.ZodType | undefined): Json[] {
  if (query === undefined) return [];
  const { properties } = jsonSchema(query, "input");
  return Object.entries((properties ?? {}) as Json).map(([name, schema]) => ({
    name,
    in: "query",
    required: false,
    schema,
  }));
}

function jsonSchema(schema: z.ZodType, io: "input" | "output"): Json {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: "any" });
  return rest;
}
