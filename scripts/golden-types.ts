/** What a golden repository held, from the trees themselves. */

/** By node: path → what `recordTree` says of it. */
export type GoldenBackup = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** By name of the backup. */
export type GoldenExpected = Readonly<Record<string, GoldenBackup>>;
