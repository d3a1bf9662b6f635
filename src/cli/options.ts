/**
 * The options that every command understands.
 */

/** As commander hands them over. */
export type GlobalOptions = {
  readonly url?: string;
  readonly config?: string;
  readonly json?: boolean;
  /** Files of age identities, for encrypted repositories. */
  readonly identity?: readonly string[];
  readonly wait: boolean;
  readonly waitCompletion?: number;
  readonly tokenFile?: string;
  readonly caFile?: string;
};

/** Where the server is unless told. */
export const DEFAULT_URL = "http://localhost:5515";
