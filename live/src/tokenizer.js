// CLIP's tokenizer: byte-pair encoding as open_clip has it, from the same list of merges.

const WORDS = /<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/giu;
const NAMED = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

/** Each byte as a letter that is neither white space nor a control character. */
function lettersOfBytes() {
  const kept = [];
  for (const [from, to] of [
    [33, 126],
    [161, 172],
    [174, 255],
  ])
    for (let byte = from; byte <= to; byte++) kept.push(byte);
  const letters = new Map(kept.map((byte) => [byte, String.fromCharCode(byte)]));
  for (let byte = 0, more = 0; byte < 256; byte++) {
    if (!letters.has(byte)) letters.set(byte, String.fromCharCode(256 + more++));
  }
  return letters; // in the order of the vocabulary: first those that stand for themselves
}

/**
 * What a sentence is before it is cut: open_clip's cleaning, of which what a person can type. (ftfy also mends text
 * that was decoded wrongly, which does not happen here.)
 */
export function cleaned(text) {
  const once = unescaped(unescaped(mended(text)));
  return once
    .trim()
    .split(/[\s\x1c-\x1f\x85]+/u)
    .filter(Boolean)
    .join(" ")
    .toLowerCase();
}

function mended(text) {
  return text
    .replaceAll("\ufb05", "\u017ft")
    .replace(/[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb06]/g, (ligature) => ligature.normalize("NFKC"))
    .replace(/[\uff01-\uff60\uffe0-\uffee\u3000]/g, (wide) => wide.normalize("NFKC"))
    .replace(/[\u2018-\u201b\u02bc]/g, "'")
    .replace(/[\u201c-\u201f]/g, '"')
    .normalize("NFC")
    .replace(/[\u0000-\u0008\u000b\u000e-\u001f\u007f\ufeff\u206a-\u206f\ufff9-\ufffc]/g, "");
}

function unescaped(text) {
  return text.replace(/&(?:#(\d+)|#x([0-9a-f]+)|([a-z]+));/gi, (whole, decimal, hex, name) => {
    if (name) return NAMED[name.toLowerCase()] ?? whole;
    const point = decimal ? Number(decimal) : Number.parseInt(hex, 16);
    return point > 0 && point <= 0x10ffff ? String.fromCodePoint(point) : whole;
  });
}

export class Tokenizer {
  /** @param {string[]} merges pairs such as "t h</w>", the likeliest first */
  constructor(merges) {
    this.letters = lettersOfBytes();
    this.ranks = new Map(merges.map((merge, rank) => [merge, rank]));
    const single = [...this.letters.values()];
    const vocabulary = [...single, ...single.map((letter) => `${letter}</w>`)];
    for (const merge of merges) vocabulary.push(merge.replace(" ", ""));
    this.start = vocabulary.length;
    this.end = this.start + 1;
    vocabulary.push("<start_of_text>", "<end_of_text>");
    this.ids = new Map(vocabulary.map((token, id) => [token, id]));
    this.encoder = new TextEncoder();
    this.known = new Map();
  }

  /** A sentence as token ids, without start and end. */
  encode(text) {
    return (cleaned(text).match(WORDS) ?? []).flatMap((word) => this.tokensOf(word));
  }

  tokensOf(word) {
    if (word === "<start_of_text>" || word === "<end_of_text>") return [this.ids.get(word)];
    if (!this.known.has(word)) {
      const letters = Array.from(this.encoder.encode(word), (byte) => this.letters.get(byte));
      letters[letters.length - 1] += "</w>";
      this.known.set(
        word,
        this.merged(letters).map((token) => this.ids.get(token)),
      );
    }
    return this.known.get(word);
  }

  /** Neighbours joined, the likeliest pair first, until no pair of the list is left. */
  merged(parts) {
    while (parts.length > 1) {
      let best = Number.POSITIVE_INFINITY;
      let pair = "";
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`);
        if (rank < best) [best, pair] = [rank, `${parts[i]} ${parts[i + 1]}`];
      }
      if (!pair) break;
      const joined = [];
      for (let i = 0; i < parts.length; i++) {
        const here = i + 1 < parts.length && `${parts[i]} ${parts[i + 1]}` === pair;
        joined.push(here ? parts[i] + parts[i + 1] : parts[i]);
        if (here) i++;
      }
      parts = joined;
    }
    return parts;
  }
}
