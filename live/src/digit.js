// A drawing as MNIST has its digits: white on black, 20 pixels high or wide, the centre of mass in the middle of 28.

import { weightsOf } from "./resize.js";

export const SIDE = 28;
const INNER = 20;

/**
 * @param {Uint8Array | Uint8ClampedArray} grey ink from 0 to 255, width x height
 * @returns {Uint8Array | null} 28 x 28; null if there is no ink
 */
export function likeMnist(grey, width, height) {
  const box = boxOf(grey, width, height);
  if (!box) return null;
  const [left, top, right, bottom] = box;
  const longer = Math.max(right - left, bottom - top);
  const [w, h] = [right - left, bottom - top].map((side) => Math.max(1, Math.round((INNER * side) / longer)));
  const [across, down] = [weightsOf(right - left, w), weightsOf(bottom - top, h)];
  const small = new Float64Array(w * h);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      down[y].weights.forEach((wy, j) => {
        const row = (top + down[y].first + j) * width + left + across[x].first;
        across[x].weights.forEach((wx, i) => {
          small[y * w + x] += wy * wx * grey[row + i];
        });
      });
    }
  }
  const total = small.reduce((a, b) => a + b, 0);
  const middle = (place) => small.reduce((sum, ink, i) => sum + ink * place(i), 0) / total;
  const clamped = (start, side) => Math.min(SIDE - side, Math.max(0, Math.round(start)));
  const x0 = clamped(SIDE / 2 - 0.5 - middle((i) => i % w), w);
  const y0 = clamped(SIDE / 2 - 0.5 - middle((i) => Math.floor(i / w)), h);
  const found = new Uint8Array(SIDE * SIDE);
  small.forEach((ink, i) => {
    found[(y0 + Math.floor(i / w)) * SIDE + x0 + (i % w)] = Math.round(ink);
  });
  return found;
}

/** Left, top, right and bottom of what has ink; null if nothing has. */
function boxOf(grey, width, height) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (grey[y * width + x] > 40) {
        [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
        [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
      }
    }
  }
  return right > left ? [left, top, right, bottom] : null;
}
