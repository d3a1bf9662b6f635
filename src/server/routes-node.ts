/**
 * The one route between nodes: a method of the wire protocol in, a stream out that ends in its
 * result. http-network.ts is the other side.
 */
import { z } from "zod";
import { toAppError } from "../base/error.ts";
import { eventResponse } from "./event-stream.ts";
import { defineRoute } from "./route.ts";

/** Claims and products' state may be larger than what users send. */
const NODE_BODY_BYTES_MAX = 64 * 1024 * 1024;

/** POST /v1/node/:method */
export const callNodeMethod = defineRoute({
  method: "POST",
  path: "/v1/node/:method",
  summary: "Calls between nodes (see ARCHITECTURE.md); not for anybody else",
  access: "node",
  body: z.unknown(),
  bodyBytesMax: NODE_BODY_BYTES_MAX,
  answer: "application/x-ndjson",
  run: ({ context, parameters, body, signal, takeYourTime }) => {
    takeYourTime();
    const node = context.node();
    const method = parameters["method"] ?? "";
    const options = { clock: context.clock, form: "ndjson", signal } as const;
    return eventResponse(options, async (write, signal) => {
      try {
        const emit = (event: object): void => write({ event }, { droppable: true });
        write({ result: await node.handle(method, body, { signal, emit }) });
      } catch (thrown) {
        const error = toAppError(thrown);
        if (error.kind === "internal") context.log.error("a call failed", { method, error });
        write({ error: error.toJSON() });
      }
    });
  },
});
