// Answers what tests/integration/test_live.py asks on standard input, so that the package's own results can be compared.

import { text } from "node:stream/consumers";
import { greyAt, resizePicture } from "../src/resize.js";
import { cleaned, Tokenizer } from "../src/tokenizer.js";

const answers = {
  tokens: ({ merges, texts }) => {
    const tokenizer = new Tokenizer(merges);
    return { ids: texts.map((one) => tokenizer.encode(one)), start: tokenizer.start, end: tokenizer.end };
  },
  cleaned: ({ texts }) => texts.map(cleaned),
  picture: ({ rgba, width, height, side }) => [...resizePicture(Uint8Array.from(rgba), width, height, side)],
  grey: ({ grey, side, to, how }) => [...greyAt(Uint8Array.from(grey), side, to, how)],
};

const asked = JSON.parse(await text(process.stdin));
process.stdout.write(JSON.stringify(asked.map(({ question, ...given }) => answers[question](given))));
