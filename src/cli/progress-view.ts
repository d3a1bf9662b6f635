/**
 * Shows how far an operation is: bars that are drawn over and over on a terminal, plain lines
 * elsewhere, one for each phase and one in a while. Everything goes to stderr.
 */
import type { MultiBar, SingleBar } from "cli-progress";
import { formatDuration } from "../base/units.ts";
import type { NodeProgressState, OperationProgress } from "../cluster/operations.ts";
import { count, size } from "./table.ts";
import type { Terminal } from "./terminal.ts";

/** Plain lines come at most so often. */
const LINE_MS = 10_000;
const BAR_WIDTH = 24;

/** Shows progress until it is closed. */
export type ProgressView = {
  readonly show: (progress: OperationProgress) => void;
  readonly say: (message: string) => void;
  readonly close: () => void;
};

/** The view that fits the terminal; `now` in milliseconds. */
export async function openProgressView(
  terminal: Terminal,
  now: () => number,
): Promise<ProgressView> {
  if (!terminal.isLive) return linesView(terminal, now);
  const { MultiBar } = await import("cli-progress");
  const bars = new MultiBar({
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
    fps: 5,
    forceRedraw: true,
    format: (_, params, payload: { text: string }) =>
      `${drawBar(params.total === 0 ? undefined : params.value / params.total)} ${payload.text}`,
  });
  return barsView(bars, now);
}

/** One line on a whole operation: `4 of 10 MiB, 1,234 files, 2 MiB/s, 3s left`. */
export function describeProgress(
  progress: Pick<OperationProgress, "bytes" | "bytesTotal" | "files" | "storedBytes">,
  elapsedMs: number,
): string {
  const { bytes, bytesTotal, files, storedBytes } = progress;
  const rate = elapsedMs < 500 ? 0 : (bytes * 1000) / elapsedMs;
  const isKnown = bytesTotal !== undefined && bytesTotal >= bytes;
  const parts = [
    isKnown ? `${size(bytes)} of ${size(bytesTotal)}` : size(bytes),
    // Objects are copied without a look at the files in them.
    ...(files > 0 || bytes === 0 ? [`${count(files)} files`] : []),
    ...(storedBytes > 0 ? [`${size(storedBytes)} sent`] : []),
    ...(rate > 0 ? [`${size(Math.round(rate))}/s`] : []),
  ];
  if (isKnown && rate > 0 && bytesTotal > bytes) {
    parts.push(`${formatDuration(Math.round(((bytesTotal - bytes) * 1000) / rate))} left`);
  }
  return parts.join(", ");
}

function linesView(terminal: Terminal, now: () => number): ProgressView {
  const startedMs = now();
  let phase = "";
  let shownMs = Number.NEGATIVE_INFINITY;
  return {
    show(progress) {
      if (progress.phase === "starting") return;
      const isNew = progress.phase !== phase;
      if (!isNew && now() - shownMs < LINE_MS) return;
      phase = progress.phase;
      shownMs = now();
      const isCounted = progress.files > 0 || progress.bytes > 0;
      const figures = isCounted ? `: ${describeProgress(progress, shownMs - startedMs)}` : "";
      terminal.say(`${phase}${figures}`);
    },
    say: (message) => terminal.say(message),
    close: () => {},
  };
}

function barsView(bars: MultiBar, now: () => number): ProgressView {
  const startedMs = now();
  const byNode = new Map<string, SingleBar>();
  const total = bars.create(0, 0, { text: "starting" });
  const update = (bar: SingleBar, part: { bytes: number; bytesTotal?: number }, text: string) => {
    bar.setTotal(part.bytesTotal ?? 0);
    bar.update(Math.min(part.bytes, part.bytesTotal ?? part.bytes), { text });
  };
  return {
    show(progress) {
      const line = describeProgress(progress, now() - startedMs);
      update(total, progress, `${progress.phase}: ${line}`);
      for (const [name, node] of Object.entries(progress.nodes)) {
        const bar = byNode.get(name) ?? bars.create(0, 0, { text: name });
        byNode.set(name, bar);
        update(bar, node, describeNode(name, node));
      }
    },
    say: (message) => bars.log(`${message}\n`),
    close: () => bars.stop(),
  };
}

function describeNode(name: string, node: NodeProgressState): string {
  const { state, phase, bytes, files } = node;
  const what = state === "running" ? phase : `${phase} ${state}`.trim();
  return `  ${name} ${what}: ${size(bytes)}, ${count(files)} files`;
}

function drawBar(share: number | undefined): string {
  const filled = Math.round(BAR_WIDTH * Math.min(1, Math.max(0, share ?? 0)));
  return `[${"#".repeat(filled)}${"-".repeat(BAR_WIDTH - filled)}]`;
}
