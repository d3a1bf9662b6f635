/** What every codec test asks of damaged bytes: an AppError of that kind, nothing else. */
import { expect } from "bun:test";
import { AppError } from "../../src/base/error.ts";

/** Expects that `fn` throws an AppError `damaged`; returns it. */
export function expectDamaged(fn: () => unknown): AppError {
  let thrown: unknown;
  try {
    fn();
  } catch (error) {
    thrown = error;
  }
  return checkDamaged(thrown);
}

/** The same for what is async. */
export async function expectDamagedAsync(fn: () => Promise<unknown>): Promise<AppError> {
  let thrown: unknown;
  try {
    await fn();
  } catch (error) {
    thrown = error;
  }
  return checkDamaged(thrown);
}

/** What a promise is rejected with, as text; undefined if it is not. */
export async function messageOf(promise: Promise<unknown>): Promise<string | undefined> {
  return await promise.then(
    () => undefined,
    (error: unknown) => String(error),
  );
}

function checkDamaged(thrown: unknown): AppError {
  expect(thrown).toBeInstanceOf(AppError);
  const error = thrown as AppError;
  expect(error.kind).toBe("damaged");
  return error;
}
