/**
 * Answers of Azure's blob service, for tests that play it where the emulator cannot be told to fail.
 */
/** A refusal as Azure words it. */
export function errorAnswer(status: number, code: string): Response {
  if (code === "") return new Response("<html>oops</html>", { status });
  const body = `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>words</Message></Error>`;
  const headers = { "content-type": "application/xml", "x-ms-error-code": code };
  return new Response(body, { status, headers });
}

/** A page of a listing; with `next` there are more. */
export function listAnswer(keys: readonly string[], next = ""): Response {
  const blobs = keys.map(
    (key) =>
      `<Blob><Name>${key}</Name><Properties><Content-Length>1</Content-Length></Properties></Blob>`,
  );
  const body =
    '<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="container">' +
    `<Blobs>${blobs.join("")}</Blobs><NextMarker>${next}</NextMarker></EnumerationResults>`;
  return new Response(body, { headers: { "content-type": "application/xml" } });
}

/** The answer to a batch: status and code of each of its requests. */
export function batchAnswer(parts: readonly (readonly [number, string])[]): Response {
  const boundary = "batchresponse_1";
  const texts = parts.map(
    ([status, code], index) =>
      `--${boundary}\r\nContent-Type: application/http\r\nContent-ID: ${index}\r\n\r\n` +
      `HTTP/1.1 ${status} words\r\nx-ms-error-code: ${code}\r\n\r\n`,
  );
  return new Response(`${texts.join("")}--${boundary}--\r\n`, {
    status: 202,
    headers: { "content-type": `multipart/mixed; boundary=${boundary}` },
  });
}

/** As `content-md5` has it. */
export function md5Of(value: string): string {
  return new Bun.CryptoHasher("md5").update(value).digest("base64");
}
