// Reads safetensors: eight bytes of length, a JSON header, then the values. What the page is given lies in such files.

const KINDS = {
  U8: Uint8Array,
  F16: Uint16Array, // as bits: see `fromHalf`
  F32: Float32Array,
  I32: Int32Array,
  I64: BigInt64Array,
};

/**
 * A file's tensors by name, `{data, shape, dtype}`, and its `metadata`. Values are copied, so the file can be let go.
 * @param {Uint8Array} bytes
 */
export function readSafetensors(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = Number(view.getBigUint64(0, true));
  if (8 + length > bytes.length) throw new Error("this file is cut short: its header does not fit");
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const { __metadata__: metadata = {}, ...described } = header;
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(described)) {
    const [from, to] = offsets.map((offset) => offset + 8 + length);
    const Kind = KINDS[dtype];
    if (!Kind) throw new Error(`${name} is of the kind ${dtype}: expected one of ${Object.keys(KINDS).join(", ")}`);
    if (to > bytes.length) throw new Error(`this file is cut short: ${name} does not fit`);
    tensors[name] = { dtype, shape, data: new Kind(bytes.slice(from, to).buffer) };
  }
  return { tensors, metadata };
}

/** Half-precision numbers, given as their bits, as ordinary ones. */
export function fromHalf(bits) {
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const exponent = (bits[i] >> 10) & 31;
    const fraction = bits[i] & 1023;
    const sign = bits[i] & 0x8000 ? -1 : 1;
    if (exponent === 31) values[i] = fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else values[i] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  }
  return values;
}
