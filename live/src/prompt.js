// A learned prompt on a picture. Pictures for a network are Float32Array (3, H, H), mostly in [0, 1].

/** RGB bytes, pixel by pixel, as values in [0, 1], channel by channel. */
export function toPlanes(rgb) {
  const count = rgb.length / 3;
  const planes = new Float32Array(rgb.length);
  for (let i = 0; i < count; i++) for (let c = 0; c < 3; c++) planes[c * count + i] = rgb[3 * i + c] / 255;
  return planes;
}

/** The other way, cut to [0, 1]: what a canvas can show of it, RGBA. */
export function toShown(planes) {
  const count = planes.length / 3;
  const shown = new Uint8ClampedArray(4 * count).fill(255);
  for (let i = 0; i < count; i++) for (let c = 0; c < 3; c++) shown[4 * i + c] = 255 * planes[c * count + i];
  return shown;
}

/** Grey bytes as three equal channels in [0, 1]. */
export function greyPlanes(grey) {
  const planes = new Float32Array(3 * grey.length);
  for (let i = 0; i < planes.length; i++) planes[i] = grey[i % grey.length] / 255;
  return planes;
}

/**
 * A picture in the middle of a black canvas, as `ExpandPrompt` places it: an odd remainder goes to the left and top.
 * @param {Float32Array} planes (3, side, side)
 */
export function onCanvas(planes, side, canvas) {
  if (side === canvas) return planes;
  const start = canvas - side - Math.floor((canvas - side) / 2);
  const placed = new Float32Array(3 * canvas * canvas);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < side; y++) {
      const row = planes.subarray((c * side + y) * side, (c * side + y + 1) * side);
      placed.set(row, (c * canvas + start + y) * canvas + start);
    }
  }
  return placed;
}

/** x + strength * v: a prompt's picture added, (3, H, H) both. */
export function prompted(planes, picture, strength) {
  if (planes.length !== picture.length) throw new Error("the prompt was made for another side than the picture has");
  return planes.map((value, i) => value + strength * picture[i]);
}
