/** What object stores say of their failures, in our words. */
import { expect, test } from "bun:test";
import { storeError } from "../../src/sites/store-error.ts";

test("an address that an answer repeats is told without the right to read it", () => {
  const message =
    "cannot copy https://store.example/a?sv=1&sig=c2VjcmV0%3D&se=2 nor " +
    "https://store.example/b?X-Amz-Signature=0123abcd&X-Amz-Date=1 nor " +
    "https://store.example/c?X-Goog-Signature=4567";
  const place = { site: "here", location: "azure://a", bucket: "a" };
  const error = storeError({ code: "Broken", status: 500, message }, place, {
    codes: {},
    statuses: {},
  });
  expect(error.message).toContain("https://store.example/a?sv=1&sig=…&se=2");
  expect(JSON.stringify(error)).not.toMatch(/c2VjcmV0|0123abcd|4567/);
});
