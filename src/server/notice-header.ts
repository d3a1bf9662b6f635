/**
 * The header of an answer that is no JSON, for what is the field `notice` of others: why it is not the
 * primary that was read. Headers are ASCII, so it is percent-encoded.
 */

/** Its name. */
export const NOTICE_HEADER = "astacus-notice";

/** The header for a notice; none without one. */
export function noticeHeader(notice: string | undefined): Record<string, string> {
  return notice === undefined ? {} : { [NOTICE_HEADER]: encodeURIComponent(notice) };
}

/** The notice of an answer, if it has one. */
export function readNotice(headers: Headers): string | undefined {
  const encoded = headers.get(NOTICE_HEADER);
  return encoded === null ? undefined : decodeURIComponent(encoded);
}
