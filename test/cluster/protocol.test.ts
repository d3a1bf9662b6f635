/** What nodes of other builds say is understood, as long as the version of the protocol is one. */
import { expect, test } from "bun:test";
import { planAnswerSchema } from "../../src/cluster/protocol.ts";

test("a plan from a node that counts no links is one", () => {
  const volume = {
    volume: "data",
    target: "/data",
    files: 1,
    bytes: 2,
    filesKept: 0,
    bytesKept: 0,
    filesToWrite: 1,
    bytesToWrite: 2,
    bytesToFetch: 2,
    directories: 0,
    extraFiles: 0,
    extraSample: [],
    extraRemoved: false,
    refusals: [],
  };
  const volumes = [volume, { ...volume, links: 3 }];
  expect(planAnswerSchema.parse({ volumes })).toEqual({ volumes });
});
