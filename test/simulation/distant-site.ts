/**
 * A site at the end of a bad line, in virtual time: requests take a while, fail before they arrive,
 * lose their answers, arrive twice, or arrive long after everybody has given them up.
 */
import type { Random } from "../../src/base/doors.ts";
import { AppError } from "../../src/base/error.ts";
import type { MemorySite } from "../../src/sites/memory-site.ts";
import type { ObjectHead, ObjectRow, Site, SiteCall } from "../../src/sites/site.ts";
import type { VirtualClock } from "./virtual-clock.ts";

/** How often what goes wrong, and how long things take. */
export type Distance = {
  readonly latencyMs: number;
  /** Chance of each fault for each request. */
  readonly faultRate: number;
  /** The longest that a put or delete may be under way after its sender gave up. */
  readonly lateMs: number;
};

/** What the line to a site is made of. */
export type Line = {
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly distance: Distance;
  /** Told when a put or delete arrives after its sender gave up. */
  readonly onLate: () => void;
};

/** A view of a site from far away. */
export class DistantSite implements Site {
  readonly name = "far";
  readonly location = "memory:far";
  readonly #site: MemorySite;
  readonly #line: Line;

  constructor(site: MemorySite, line: Line) {
    this.#site = site;
    this.#line = line;
  }

  async get(
    key: string,
    options: SiteCall & { readonly offset?: number; readonly length?: number } = {},
  ): Promise<Uint8Array | undefined> {
    return await this.#ask(() => this.#site.get(key, options));
  }

  async head(key: string): Promise<ObjectHead | undefined> {
    return await this.#ask(() => this.#site.head(key));
  }

  async put(key: string, bytes: Uint8Array): Promise<"created" | "exists"> {
    return await this.#change(() => this.#site.put(key, bytes));
  }

  async delete(keys: readonly string[]): Promise<void> {
    await this.#change(() => this.#site.delete(keys));
  }

  async *list(
    prefix: string,
    options: SiteCall & { readonly after?: string } = {},
  ): AsyncIterable<ObjectRow> {
    await this.#travel();
    yield* this.#site.list(prefix, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The site belongs to somebody else.
  }

  async #ask<Answer>(work: () => Promise<Answer>): Promise<Answer> {
    await this.#travel();
    if (this.#draw()) throw brokenLine();
    return await work();
  }

  async #change<Answer>(work: () => Promise<Answer>): Promise<Answer> {
    await this.#travel();
    if (this.#draw()) throw brokenLine();
    if (this.#draw()) {
      void this.#arriveLate(work);
      throw brokenLine();
    }
    const answer = await work();
    await this.#travel();
    if (this.#draw()) throw brokenLine();
    return this.#draw() ? await work() : answer;
  }

  async #arriveLate(work: () => Promise<unknown>): Promise<void> {
    await this.#line.clock.sleep(this.#line.random.fraction() * this.#line.distance.lateMs);
    this.#line.onLate();
    await work();
  }

  async #travel(): Promise<void> {
    await this.#line.clock.sleep(this.#line.random.fraction() * this.#line.distance.latencyMs);
  }

  #draw(): boolean {
    return this.#line.random.fraction() < this.#line.distance.faultRate;
  }
}

function brokenLine(): AppError {
  return new AppError("unavailable", "The line broke.");
}
