/**
 * A verification's report in words.
 */
import type { VerifyReport } from "../cas/read/verify.ts";
import { count, counted, size } from "./table.ts";

const PROBLEMS_SHOWN = 20;
const NAMES_SHOWN = 5;

/** What was looked at, and each problem with the object and the files that it hits. */
export function describeVerification(report: VerifyReport): string {
  const { backups, packs, packBytes, segments, entries, deep, problems, problemCount } = report;
  const read = deep ? "every byte read" : "every object asked for; --deep reads every byte";
  const { sharesProved = 0 } = report;
  const shares = `, ${count(sharesProved)} shares proved by the database's own checksums`;
  const proved = sharesProved === 0 ? "" : shares;
  const head = `${counted(backups.length, "backup")}, ${counted(packs, "pack")} of ${size(packBytes)} (${read}), ${count(segments)} index segments, ${count(entries)} log entries${proved}`;
  const sealed = report.closedFrames ?? 0;
  const isClosed = sealed > 0 || backups.some(({ closed }) => closed === true);
  const notes = isClosed
    ? [
        "No identity was given that opens all of it (--identity): what is sealed was checked " +
          "without opening it.",
      ]
    : [];
  if (report.ok) return [head, ...notes, "Nothing is wrong."].join("\n");
  const shown = problems.slice(0, PROBLEMS_SHOWN);
  const lines = shown.flatMap(({ object, message, files, fileCount, backups: hit }) => {
    const names = files.slice(0, NAMES_SHOWN);
    const more = fileCount > names.length ? `, and ${count(fileCount - names.length)} more` : "";
    const takes = names.length === 0 ? [] : [`    files: ${names.join(", ")}${more}`];
    const needs = hit.length === 0 ? [] : [`    backups: ${hit.join(", ")}`];
    return [`  ${object}: ${message}`, ...needs, ...takes];
  });
  const rest = problemCount - shown.length;
  const tail = rest > 0 ? [`  … and ${count(rest)} more (--json shows up to a thousand)`] : [];
  return [head, ...notes, `${counted(problemCount, "problem")}:`, ...lines, ...tail].join("\n");
}
