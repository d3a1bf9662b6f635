/**
 * `astacus verify`, by a server or straight from the site.
 */
import type { VerifyReport } from "../cas/read/verify.ts";
import type { OperationRecord } from "../cluster/operations.ts";
import { print } from "./command.ts";
import type { CommandEnd, CommandRun } from "./command.ts";
import { connect } from "./connect.ts";
import { EXIT } from "./exit-code.ts";
import { finish } from "./finish.ts";
import { isOffline } from "./reader.ts";
import { describeVerification } from "./verify-report.ts";

/** Verifies one backup or all; ends with 1 if anything is wrong. */
export async function verify(
  run: CommandRun,
  backup: string | undefined,
  own: { readonly deep?: boolean },
): Promise<CommandEnd> {
  const deep = own.deep === true;
  const request = { deep, ...(backup === undefined ? {} : { backup }) };
  const codeOf = (report: VerifyReport): CommandEnd => (report.ok ? EXIT.done : EXIT.failed);
  if (!isOffline(run)) {
    const client = await connect(run);
    const record = await client.post<OperationRecord>("/v1/verifications", request);
    return await finish(run, client, record, {
      text: (report) => describeVerification(report as VerifyReport),
      code: (report) => codeOf(report as VerifyReport),
    });
  }
  const { withOffline } = await import("./offline.ts");
  const report = await withOffline(run, async (offline) => await offline.verify(request));
  print(run, report, () => describeVerification(report));
  return codeOf(report);
}
