// A word as LoGoPrompt's strip: type as large as fits on up to three lines, two colours of legible contrast.

const CONTRAST = 4.5; // WCAG 2 calls text legible from this ratio of luminances on
export const SMALLEST = 5; // pixels from the top of a line of type to its bottom

/** Ascent and descent of DejaVu Sans at a size, in whole pixels as FreeType has them. */
export function lineOf(size) {
  return { ascent: Math.ceil((1901 / 2048) * size), descent: Math.ceil((483 / 2048) * size) };
}

/** The words on one, two and three lines, broken where the longest line is shortest. */
export function broken(name) {
  const words = name.replaceAll("_", " ").split(/\s+/).filter(Boolean);
  const ways = [[words.join(" ")]];
  for (let k = 2; k <= Math.min(3, words.length); k++) {
    const cut = cuts(1, words.length, k - 1).map((places) =>
      [0, ...places].map((from, i) => words.slice(from, places[i] ?? words.length).join(" ")),
    );
    ways.push(cut.reduce((a, b) => (longest(b) < longest(a) ? b : a)));
  }
  return ways;
}

const longest = (lines) => Math.max(...lines.map((line) => [...line].length));

function cuts(from, to, count) {
  if (count === 0) return [[]];
  const found = [];
  for (let at = from; at < to; at++) for (const rest of cuts(at + 1, to, count - 1)) found.push([at, ...rest]);
  return found;
}

/**
 * The lines and the largest size at which they fit a strip.
 * @param {(line: string, size: number) => number} widthOf a line of type
 */
export function fittedType(name, width, height, widthOf) {
  let best = { size: 0, lines: [""] };
  for (const lines of broken(name)) {
    let [low, high] = [0, 2 * height];
    while (low < high) {
      const size = Math.floor((low + high + 1) / 2);
      const { ascent, descent } = lineOf(size);
      const wide = Math.max(...lines.map((line) => widthOf(line, size)));
      const fits = wide <= 0.96 * width && (ascent + descent) * lines.length <= 1.08 * height;
      [low, high] = fits ? [size, high] : [low, size - 1];
    }
    if (low > best.size) best = { size: low, lines };
  }
  return best;
}

/** Two random colours, again and again until they can be told apart: text and ground. */
export function colours(random = Math.random) {
  const colour = () => Array.from({ length: 3 }, () => Math.floor(256 * random()));
  for (;;) {
    const [text, ground] = [colour(), colour()];
    if (contrast(text, ground) >= CONTRAST) return { text, ground };
  }
}

export function contrast(a, b) {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

/** Relative luminance of an sRGB colour, as WCAG 2 defines it. */
function luminance(colour) {
  const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** A strip over a picture, both RGB bytes and `side` pixels wide, from the row `top` on. */
export function pasted(rgb, strip, side, top) {
  const rows = strip.length / (3 * side);
  if (!(top >= 0 && top + rows <= side)) throw new Error(`a strip of ${rows} rows does not fit at row ${top}`);
  const found = rgb.slice();
  found.set(strip, 3 * side * top);
  return found;
}
