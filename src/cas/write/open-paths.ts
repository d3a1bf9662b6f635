/**
 * The paths of an ascending walk under which more may come. Listings ascend by the bytes of whole
 * paths, where `a`, `a-b`, `a/c` is the order, so a directory stays open while others come and go;
 * what is open is always a beginning of the path at hand, which bounds it by a path's length.
 */

/** Open paths with a value each, the outermost first. */
export class OpenPaths<Value> {
  readonly #open: { readonly path: string; readonly value: Value }[] = [];

  /** Moves on to a path: returns what can hold nothing more, the innermost first. */
  advance(path: string): Value[] {
    const closed: Value[] = [];
    for (let last = this.#open.at(-1); last !== undefined; last = this.#open.at(-1)) {
      if (mayPrecede(last.path, path)) break;
      closed.push(last.value);
      this.#open.pop();
    }
    return closed;
  }

  /** Opens the path that was advanced to, or one that it lies below. */
  open(path: string, value: Value): void {
    const after = this.#open.findLastIndex((one) => one.path.length < path.length);
    this.#open.splice(after + 1, 0, { path, value });
  }

  get(path: string): Value | undefined {
    return this.#open.find((one) => one.path === path)?.value;
  }

  /** Closes everything, the innermost first. */
  end(): Value[] {
    return this.#open
      .splice(0)
      .map(({ value }) => value)
      .toReversed();
  }
}

/** True if a path below `directory` may still come once the walk is at `path`. */
function mayPrecede(directory: string, path: string): boolean {
  return path.startsWith(directory) && (path[directory.length] ?? "/") <= "/";
}
