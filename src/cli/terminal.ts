/**
 * Where a command writes and whom it asks: data goes to stdout, talk to stderr, so that output can
 * be piped while a person reads along.
 */
import { createInterface } from "node:readline/promises";

/** The two streams and the person behind them. */
export type Terminal = {
  /** Data. */
  readonly print: (text: string) => void;
  /** Talk. */
  readonly say: (text: string) => void;
  /** Whether progress can be drawn over and over: stderr is a terminal. */
  readonly isLive: boolean;
  /** Whether somebody can be asked: stdin and stderr are terminals. */
  readonly canAsk: boolean;
  /** True for a yes. */
  readonly ask: (question: string) => Promise<boolean>;
};

/** The terminal of this process. */
export function processTerminal(): Terminal {
  return {
    print: (text) => void process.stdout.write(`${text}\n`),
    say: (text) => void process.stderr.write(`${text}\n`),
    isLive: process.stderr.isTTY,
    canAsk: process.stdin.isTTY && process.stderr.isTTY,
    ask,
  };
}

async function ask(question: string): Promise<boolean> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await lines.question(`${question} [y/N] `);
    return /^\s*y(es)?\s*$/i.test(answer);
  } finally {
    lines.close();
  }
}
