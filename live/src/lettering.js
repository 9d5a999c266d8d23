// Draws a name strip in DejaVu Sans, as the package's own strips are, with the browser's canvas.

import { element } from "./controls.js";
import { Refusal } from "./refusal.js";
import { fittedType, lineOf, SMALLEST } from "./strips.js";

const FAMILY = "vpkit strips";
const LETTERS = /^[\u0020-\u007e\u00a0-\u017f\u0384-\u03ff\u0400-\u045f\s]*$/u; // of the font's subset

/** Makes the font known to the page; its bytes are here, nothing is fetched. */
export async function useFont(bytes) {
  const face = new FontFace(FAMILY, bytes.buffer);
  document.fonts.add(await face.load());
}

/** A word as a strip: RGB bytes, height x width. */
export function stripOf(word, width, height, { text, ground }) {
  const strange = [...word].filter((letter) => !LETTERS.test(letter));
  if (strange.length) {
    throw new Refusal(`The strip's font has no ${strange.slice(0, 3).join(" ")}: use letters, digits and punctuation.`);
  }
  const context = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  const font = (size) => `${size}px "${FAMILY}"`;
  const { size, lines } = fittedType(word, width, height, (line, tried) => {
    context.font = font(tried);
    return context.measureText(line).width;
  });
  if (size < SMALLEST) throw new Refusal("That is too long for a strip that anybody could read: use fewer letters.");
  context.fillStyle = `rgb(${ground})`;
  context.fillRect(0, 0, width, height);
  context.font = font(size);
  context.fillStyle = `rgb(${text})`;
  const { ascent, descent } = lineOf(size);
  const top = (height - (ascent + descent) * lines.length) / 2;
  lines.forEach((line, k) => {
    const left = (width - context.measureText(line).width) / 2;
    context.fillText(line, left, top + k * (ascent + descent) + ascent);
  });
  return Uint8Array.from(context.getImageData(0, 0, width, height).data).filter((_, i) => i % 4 !== 3);
}
