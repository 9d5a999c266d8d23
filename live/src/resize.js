// Bilinear resizing with anti-aliasing, as Pillow does it (in fixed point, rounded after each pass) and as torch does
// it for whole numbers (in floats, rounded once). Prompts were learned on pictures that came to their side so.

const PRECISION = 22; // bits after the point of Pillow's weights
const HALF = 1 << (PRECISION - 1);

/** For each of `to` places: the first of the `from` places it is made of, and their weights, which sum to 1. */
export function weightsOf(from, to) {
  const scale = from / to;
  const support = Math.max(scale, 1);
  const nearness = 1 / support; // a factor, as Pillow has it: a division rounds otherwise
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = Array.from({ length: end - first }, (_, k) =>
      Math.max(0, 1 - Math.abs((first + k - centre + 0.5) * nearness)),
    );
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** Weights as Pillow rounds them: whole numbers of 2^-22. */
function fixed(places) {
  return places.map(({ first, weights }) => ({
    first,
    weights: Int32Array.from(weights, (weight) => Math.trunc(0.5 + weight * 2 ** PRECISION)),
  }));
}

/**
 * Pillow's resize of a picture that arrives in bands of rows, so that a large one is never in memory as a whole.
 * `add(rgba, rows)` for each band from the top, then `finish()`: RGB, side x side. Transparent pixels are put on white.
 */
export class BandedResize {
  constructor(width, height, side) {
    Object.assign(this, { width, height, side, row: 0 });
    // Pillow goes across first, except where many rows become few (found by trying: Pillow 13).
    this.downFirst = height > side && height - side > 2 * (width - side);
    this.across = fixed(weightsOf(width, side));
    this.down = fixed(weightsOf(height, side));
    if (this.downFirst) this.sums = new Float64Array(3 * width * side).fill(HALF);
    else this.narrow = new Uint8Array(3 * side * height);
  }

  add(rgba, rows) {
    const { width, side, narrow, across } = this;
    const line = new Uint8Array(3 * width);
    for (let y = 0; y < rows; y++, this.row++) {
      onWhite(rgba.subarray(4 * y * width, 4 * (y + 1) * width), line);
      if (this.downFirst) this.addDown(line);
      else widened(line, across, narrow.subarray(3 * side * this.row));
    }
  }

  /** A row's part in the rows of the result that it belongs to. */
  addDown(line) {
    this.down.forEach(({ first, weights }, y) => {
      const weight = weights[this.row - first];
      if (!weight) return;
      const sums = this.sums.subarray(y * line.length, (y + 1) * line.length);
      for (let i = 0; i < line.length; i++) sums[i] += line[i] * weight;
    });
  }

  finish() {
    const { side, width, height } = this;
    if (this.row !== height) throw new Error(`${this.row} rows came, of a picture of ${height}`);
    if (!this.downFirst) return lowered(this.narrow, 3 * side, this.down);
    const low = Uint8Array.from(this.sums, clip8);
    const found = new Uint8Array(3 * side * side);
    for (let y = 0; y < side; y++) {
      widened(low.subarray(3 * width * y, 3 * width * (y + 1)), this.across, found.subarray(3 * side * y));
    }
    return found;
  }
}

/** A row of RGB made as wide as there are places. */
function widened(line, across, found) {
  for (let x = 0; x < across.length; x++) {
    const { first, weights } = across[x];
    let [r, g, b] = [HALF, HALF, HALF];
    for (let k = 0, at = 3 * first; k < weights.length; k++, at += 3) {
      r += line[at] * weights[k];
      g += line[at + 1] * weights[k];
      b += line[at + 2] * weights[k];
    }
    found[3 * x] = clip8(r);
    found[3 * x + 1] = clip8(g);
    found[3 * x + 2] = clip8(b);
  }
}

/** Rows of `length` values made as many as there are places. */
function lowered(rows, length, down) {
  const found = new Uint8Array(down.length * length);
  down.forEach(({ first, weights }, y) => {
    for (let i = 0; i < length; i++) {
      let sum = HALF;
      for (let k = 0; k < weights.length; k++) sum += rows[(first + k) * length + i] * weights[k];
      found[y * length + i] = clip8(sum);
    }
  });
  return found;
}

function clip8(sum) {
  return Math.min(255, Math.max(0, sum >> PRECISION));
}

/** A row of RGBA as RGB, over white where it is transparent; rounded as Pillow's `alpha_composite` rounds. */
function onWhite(rgba, line) {
  for (let i = 0, at = 0; i < rgba.length; i += 4, at += 3) {
    const alpha = rgba[i + 3];
    for (let c = 0; c < 3; c++) {
      line[at + c] = alpha === 255 ? rgba[i + c] : divided255(rgba[i + c] * alpha + 255 * (255 - alpha));
    }
  }
}

function divided255(value) {
  const sum = value + 128;
  return ((sum >> 8) + sum) >> 8;
}

/** RGBA, width x height, to RGB, side x side, as Pillow does it. */
export function resizePicture(rgba, width, height, side) {
  const resize = new BandedResize(width, height, side);
  resize.add(rgba, height);
  return resize.finish();
}

/** One channel, side x side, to another side, as "pillow" or "torch" does it. */
export function greyAt(grey, side, to, how) {
  if (how === "torch") return resizeGrey(grey, side, to);
  const rgba = Uint8Array.from({ length: 4 * grey.length }, (_, i) => (i % 4 === 3 ? 255 : grey[i >> 2]));
  return resizePicture(rgba, side, side, to).filter((_, i) => i % 3 === 0);
}

/** One channel of whole numbers, side x side, to another side, as torch does it. */
export function resizeGrey(grey, side, to) {
  const places = weightsOf(side, to);
  const narrow = new Float64Array(side * to);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < to; x++) {
      const { first, weights } = places[x];
      for (let k = 0; k < weights.length; k++) narrow[y * to + x] += grey[y * side + first + k] * weights[k];
    }
  }
  const found = new Uint8Array(to * to);
  for (let y = 0; y < to; y++) {
    const { first, weights } = places[y];
    for (let x = 0; x < to; x++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += narrow[(first + k) * to + x] * weights[k];
      found[y * to + x] = roundEven(sum);
    }
  }
  return found;
}

/** To the nearest whole number, halves to the even one, in 0..255: as torch rounds. */
function roundEven(value) {
  const near = Math.round(value);
  return Math.min(255, Math.max(0, near - value === 0.5 && near % 2 ? near - 1 : near));
}
