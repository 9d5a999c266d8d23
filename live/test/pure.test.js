// The parts that need no browser: `make js`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { likeMnist, SIDE } from "../src/digit.js";
import { sizeOf } from "../src/headers.js";
import { greyPlanes, onCanvas, prompted, toPlanes, toShown } from "../src/prompt.js";
import { Refusal } from "../src/refusal.js";
import { BandedResize, resizePicture, weightsOf } from "../src/resize.js";
import { fromHalf, readSafetensors } from "../src/safetensors.js";
import { cosines, ensembled, mapped, reselect, softmax, topOf } from "../src/scores.js";
import { checkKnown, filled, parted, TokenTable } from "../src/sentences.js";
import { broken, colours, contrast, fittedType, lineOf, pasted } from "../src/strips.js";
import { Tokenizer } from "../src/tokenizer.js";
import { fromBase64, gunzip } from "../src/unpack.js";

const close = (found, wanted, tolerance = 1e-6) =>
  Array.from(wanted).forEach((value, i) => {
    assert.ok(Math.abs(found[i] - value) <= tolerance, `at ${i}: ${found[i]}, not ${value}`);
  });

function safetensors(tensors, metadata = {}) {
  const header = { __metadata__: metadata };
  let end = 0;
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [end, end + bytes.length] };
    end += bytes.length;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  let at = 8 + text.length;
  for (const { bytes } of Object.values(tensors)) {
    file.set(bytes, at);
    at += bytes.length;
  }
  return file;
}

test("safetensors are read, whatever their place in the file", () => {
  const bytes = new Uint8Array(new Float32Array([1.5, -2]).buffer);
  const file = safetensors(
    { odd: { dtype: "U8", shape: [3], bytes: Uint8Array.of(1, 2, 3) }, f: { dtype: "F32", shape: [2], bytes } },
    { told: "yes" },
  );
  const { tensors, metadata } = readSafetensors(file);
  assert.deepEqual([...tensors.odd.data], [1, 2, 3]);
  assert.deepEqual([...tensors.f.data], [1.5, -2]);
  assert.equal(metadata.told, "yes");
  assert.throws(() => readSafetensors(file.subarray(0, file.length - 1)), /cut short: f does not fit/);
  assert.throws(() => readSafetensors(file.subarray(0, 20)), /cut short/);
});

test("half-precision numbers come back as they were", () => {
  close(fromHalf(Uint16Array.of(0x3c00, 0xc000, 0x3555, 0x0001, 0x7bff)), [1, -2, 0.333251953125, 2 ** -24, 65504], 0);
  assert.equal(fromHalf(Uint16Array.of(0xfc00))[0], Number.NEGATIVE_INFINITY);
  assert.ok(Number.isNaN(fromHalf(Uint16Array.of(0x7e00))[0]));
});

test("what was packed is unpacked", async () => {
  const { gzipSync } = await import("node:zlib");
  const packed = gzipSync(Buffer.from("a prompt")).toString("base64");
  assert.equal(new TextDecoder().decode(await gunzip(fromBase64(packed))), "a prompt");
});

test("weights of a resize sum to one and keep the middle", () => {
  for (const [from, to] of [
    [28, 96],
    [300, 96],
    [97, 96],
    [1, 5],
    [5, 1],
  ]) {
    for (const { first, weights } of weightsOf(from, to)) {
      close([weights.reduce((a, b) => a + b)], [1], 1e-12);
      assert.ok(first >= 0 && first + weights.length <= from);
    }
  }
});

for (const [width, height, side] of [
  [37, 53, 16],
  [20, 53, 16], // down first
])
  test(`${width} x ${height} resized in bands is the picture resized at once`, () => {
    const rgba = Uint8Array.from({ length: 4 * width * height }, (_, i) => (i * 7919) % 256);
    const banded = new BandedResize(width, height, side);
    banded.add(rgba.subarray(0, 4 * width * 20), 20);
    assert.throws(() => banded.finish(), /20 rows came, of a picture of 53/);
    banded.add(rgba.subarray(4 * width * 20), 33);
    assert.deepEqual(banded.finish(), resizePicture(rgba, width, height, side));
  });

test("a transparent pixel lies on white", () => {
  assert.deepEqual([...resizePicture(Uint8Array.of(10, 20, 30, 0), 1, 1, 1)], [255, 255, 255]);
  assert.deepEqual([...resizePicture(Uint8Array.of(0, 0, 0, 128), 1, 1, 1)], [127, 127, 127]);
});

test("a drawing is scaled to 20 pixels and centred by its mass; an empty one is none", () => {
  const ink = new Uint8Array(100 * 100);
  for (let y = 10; y < 70; y++) for (let x = 5; x < 15; x++) ink[100 * y + x] = 255;
  const grey = likeMnist(ink, 100, 100);
  const rows = Array.from({ length: SIDE }, (_, y) => grey.subarray(SIDE * y, SIDE * (y + 1)).some((v) => v > 127));
  assert.equal(rows.filter(Boolean).length, 20);
  const total = grey.reduce((a, b) => a + b, 0);
  for (const place of [(i) => i % SIDE, (i) => Math.floor(i / SIDE)]) {
    const middle = grey.reduce((sum, value, i) => sum + value * place(i), 0) / total;
    assert.ok(Math.abs(middle - 13.5) <= 0.51, `centre at ${middle}`);
  }
  assert.equal(likeMnist(new Uint8Array(100), 10, 10), null);
});

test("a prompt is added with its strength, and a border lies where ExpandPrompt puts it", () => {
  const planes = onCanvas(Float32Array.of(1, 2, 3), 1, 4);
  assert.deepEqual([...planes.subarray(0, 16)].indexOf(1), 4 * 2 + 2); // an odd remainder to the left and top
  assert.deepEqual([...prompted(Float32Array.of(1, 2), Float32Array.of(4, -2), 0.5)], [3, 1]);
  assert.deepEqual([...prompted(Float32Array.of(1, 2), Float32Array.of(4, -2), 0)], [1, 2]);
  assert.throws(() => prompted(new Float32Array(3), new Float32Array(6), 1), /another side/);
});

test("pixels become planes and back", () => {
  const rgb = Uint8Array.of(255, 0, 51, 102, 204, 0);
  const planes = toPlanes(rgb);
  close(planes, [1, 0.4, 0, 0.8, 0.2, 0], 1e-7);
  assert.deepEqual([...toShown(planes)], [255, 0, 51, 255, 102, 204, 0, 255]);
  close(greyPlanes(Uint8Array.of(0, 255)), [0, 1, 0, 1, 0, 1], 0);
});

test("logits, probabilities and mappings", () => {
  close(softmax([1000, 1000]), [0.5, 0.5]);
  close(softmax([0, Math.log(3)]), [0.25, 0.75]);
  assert.deepEqual(topOf([1, 5, 5, 2], 3), [1, 2, 3]);
  assert.deepEqual(mapped([10, 11, 12], [2, 0]), [12, 10]);
  close(cosines([0.6, 0.8], [1, 0, 0, 1], 10), [6, 8]);
  close(ensembled([1, 0, 0, 1, 0, 1, 0, 1], 2, 2), [Math.SQRT1_2, Math.SQRT1_2, 0, 1]);
});

test("LoGoPrompt takes the best of the larger scores", () => {
  const { rows, prediction, changed } = reselect([0.5, 0.3, 0.2], [0, 1], [0.1, 0.9]);
  assert.deepEqual(rows[0], { class: 0, plain: 0.5, named: 0.1, min: 0.1, max: 0.5 });
  assert.equal(prediction, 1);
  assert.ok(changed);
  assert.equal(reselect([0.5, 0.3], [0, 1], [0.5, 0.5]).prediction, 0); // of equals the likelier one
});

test("names are broken, fitted and pasted", () => {
  assert.deepEqual(broken("skull and crossbones"), [
    ["skull and crossbones"],
    ["skull and", "crossbones"],
    ["skull", "and", "crossbones"],
  ]);
  const widthOf = (line, size) => 0.6 * size * line.length;
  const { size, lines } = fittedType("skull and crossbones", 96, 14, widthOf);
  assert.ok(size >= 5 && Math.max(...lines.map((line) => widthOf(line, size))) <= 0.96 * 96);
  assert.ok((lineOf(size).ascent + lineOf(size).descent) * lines.length <= 1.08 * 14);
  for (let i = 0; i < 50; i++) {
    const { text, ground } = colours();
    assert.ok(contrast(text, ground) >= 4.5);
  }
  const rgb = pasted(new Uint8Array(3 * 4), Uint8Array.of(7, 7, 7, 7, 7, 7), 2, 1);
  assert.deepEqual([...rgb], [0, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7]);
  assert.throws(() => pasted(new Uint8Array(12), new Uint8Array(6), 2, 2), /does not fit/);
});

const tokenizer = () => new Tokenizer(["c a", "ca t</w>", "d o", "do g</w>", "a </w>"].slice(0, 4));

test("words are merged in the order of the list", () => {
  const { ids } = tokenizer();
  assert.deepEqual(tokenizer().encode("CAT  dog"), [ids.get("cat</w>"), ids.get("dog</w>")]);
  assert.equal(tokenizer().encode("cab").length, 2);
  assert.equal(tokenizer().start, 516);
});

test("sentences are refused with a reason", () => {
  assert.deepEqual(parted("cat, dog ,,cat\n", /[,\n]/), ["cat", "dog"]);
  assert.deepEqual(filled(["a {}", "the {}"], ["x", "$&"]), ["a x", "a $&", "the x", "the $&"]);
  for (const [templates, names, said] of [
    [["a {}"], [], /no class name/],
    [[], ["a"], /no template/],
    [["a"], ["a"], /exactly one/],
    [["{} {}"], ["a"], /exactly one/],
    [["{} }"], ["a"], /exactly one/],
    [["{}"], ["a{}"], /braces/],
    [["{}"], Array.from({ length: 101 }, (_, i) => `n${i}`), /101 class names/],
    [Array.from({ length: 5 }, (_, i) => `${i} {}`), Array.from({ length: 100 }, (_, i) => `n${i}`), /500 sentences/],
  ])
    assert.throws(
      () => filled(templates, names),
      (error) => error instanceof Refusal && said.test(error.message),
    );
});

test("a word that the model never met is named", () => {
  const own = tokenizer();
  const rows = [own.ids.get("cat</w>"), own.start, own.end];
  const table = new TokenTable(own, Int32Array.from(rows), Float32Array.of(1, 2, 3, 4, 5, 6), 4);
  const { embedded, end } = table.embedded([[rows[0]], [Float32Array.of(7, 8), rows[0]]]);
  assert.deepEqual([...embedded[0]], [3, 4, 1, 2, 5, 6, 0, 0, 3, 4, 7, 8, 1, 2, 5, 6]);
  assert.deepEqual(embedded[1], [2, 4, 2]);
  assert.deepEqual([...end[0]], [2n, 3n]);
  checkKnown(table, ["cat cat"]);
  assert.throws(() => checkKnown(table, ["cat dog!"]), /never met “dog”/);
  assert.throws(() => table.embedded([[rows[0], rows[0], rows[0]]]), /5 tokens with start and end, this model reads 4/);
});

test("the size of a picture is read from its first bytes", () => {
  const bytes = (text, length = 40) => Uint8Array.from({ length }, (_, i) => text[i] ?? 0);
  const ascii = (text) => [...text].map((letter) => letter.charCodeAt(0));
  const png = bytes([0x89, ...ascii("PNG"), 13, 10, 26, 10, 0, 0, 0, 13, ...ascii("IHDR"), 0, 0, 39, 16, 0, 0, 39, 17]);
  assert.deepEqual(sizeOf(png), { width: 10000, height: 10001 });
  assert.deepEqual(sizeOf(bytes([...ascii("GIF89a"), 3, 0, 4, 1])), { width: 3, height: 260 });
  const jpeg = bytes([0xff, 0xd8, 0xff, 0xe0, 0, 4, 0, 0, 0xff, 0xc2, 0, 11, 8, 1, 0, 2, 0]);
  assert.deepEqual(sizeOf(jpeg), { width: 512, height: 256 });
  const webp = bytes([...ascii("RIFF"), 0, 0, 0, 0, ...ascii("WEBPVP8X"), 10, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 4, 1, 0]);
  assert.deepEqual(sizeOf(webp), { width: 10, height: 261 });
  assert.equal(sizeOf(bytes(ascii("hello, this is no picture"))), null);
  assert.equal(sizeOf(Uint8Array.of(1)), null);
});
