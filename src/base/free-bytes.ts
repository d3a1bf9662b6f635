/**
 * Memory given back at once. The runtime frees the buffer behind an array when it collects garbage,
 * which it does by the size of objects and not of buffers: a stream of decoded frames grows to
 * hundreds of mebibytes, and each new one costs page faults.
 */

/**
 * Frees what lies behind an array that is the whole of its buffer and that nobody needs any more;
 * afterwards the array is empty. Others are left alone.
 */
export function freeBytes(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (!(buffer instanceof ArrayBuffer) || bytes.length !== buffer.byteLength) return;
  if (!buffer.detached) buffer.transfer(0);
}
