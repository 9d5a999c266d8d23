// A file of a picture to the pixels a network takes. Decoded by the browser, resized as Pillow does, in bands.

import { sizeOf } from "./headers.js";
import { Refusal } from "./refusal.js";
import { BandedResize } from "./resize.js";

export const MOST_MEGAPIXELS = 64;
const LONGEST_SIDE = 16384; // of a canvas, in any browser
const BAND = 256; // rows decoded to numbers at a time

/**
 * @param {Blob} blob
 * @returns {Promise<{rgb: Uint8Array, width: number, height: number}>} side x side, squashed; and how large it was
 */
export async function readPicture(blob, side) {
  const head = new Uint8Array(await blob.slice(0, 1 << 20).arrayBuffer());
  const told = sizeOf(head);
  if (told) checkSize(told);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    throw new Refusal("This file is not a picture that your browser can decode: try a JPEG or a PNG.");
  }
  try {
    checkSize(bitmap);
    return { rgb: resized(bitmap, side), width: bitmap.width, height: bitmap.height };
  } finally {
    bitmap.close();
  }
}

function checkSize({ width, height }) {
  const megapixels = (width * height) / 1e6;
  if (!(width > 0 && height > 0)) throw new Refusal("This picture has no pixels: try another one.");
  if (megapixels > MOST_MEGAPIXELS || Math.max(width, height) > LONGEST_SIDE) {
    throw new Refusal(
      `This picture has ${width} x ${height} pixels (${megapixels.toFixed(0)} megapixels); this page takes up to ` +
        `${MOST_MEGAPIXELS} megapixels and ${LONGEST_SIDE} pixels a side: make it smaller first.`,
    );
  }
}

function resized(bitmap, side) {
  const { width, height } = bitmap;
  const resize = new BandedResize(width, height, side);
  const canvas = new OffscreenCanvas(width, Math.min(BAND, height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += BAND) {
    const rows = Math.min(BAND, height - top);
    context.clearRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    resize.add(context.getImageData(0, 0, width, rows).data, rows);
  }
  canvas.width = canvas.height = 0; // gives its memory back at once
  return resize.finish();
}
