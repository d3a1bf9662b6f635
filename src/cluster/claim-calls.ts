/**
 * The coordinator's end of claim, settle and resolve: wire form to claim table and back.
 */
import { AppError } from "../base/error.ts";
import { fromHex } from "../base/hex.ts";
import type { ClaimTable } from "./claims.ts";
import type { JsonValue } from "./protocol.ts";
import {
  claimRequestSchema,
  parseRequest,
  resolveRequestSchema,
  settleRequestSchema,
} from "./protocol.ts";

/** Answers a claim call of a node; refuses an operation that does not run here. */
export function handleClaimCall(
  tables: ReadonlyMap<string, ClaimTable>,
  method: "claim" | "settle" | "resolve",
  body: unknown,
): JsonValue {
  switch (method) {
    case "claim": {
      const request = parseRequest(claimRequestSchema, method, body);
      const table = mustGetTable(tables, request.operation);
      return { ours: table.claim(request.node, request.ids.map(fromHex)) };
    }
    case "settle": {
      const request = parseRequest(settleRequestSchema, method, body);
      const places = request.places.map((place) => ({ ...place, id: fromHex(place.id) }));
      mustGetTable(tables, request.operation).settle(request.node, places);
      return {};
    }
    case "resolve": {
      const request = parseRequest(resolveRequestSchema, method, body);
      const table = mustGetTable(tables, request.operation);
      return { places: table.resolve(request.node, request.ids.map(fromHex)) };
    }
  }
}

function mustGetTable(tables: ReadonlyMap<string, ClaimTable>, operation: string): ClaimTable {
  const table = tables.get(operation);
  if (table !== undefined) return table;
  throw new AppError("conflict", `Operation ${operation} does not run on this coordinator.`, {
    guidance: "It has ended or its coordinator restarted; run the command again.",
    context: { reason: "lease-lost" },
  });
}
