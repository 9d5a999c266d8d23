// The worker: holds what was loaded, answers one question after the other, and so the page never waits for a network.

import { likeMnist, SIDE } from "./digit.js";
import { readPicture } from "./pictures.js";
import { greyPlanes, onCanvas, prompted, toPlanes, toShown } from "./prompt.js";
import { Refusal } from "./refusal.js";
import { greyAt } from "./resize.js";
import { loadGraph, startRuntime } from "./runtime.js";
import { fromHalf, readSafetensors } from "./safetensors.js";
import { cosines, ensembled, mapped, reselect, softmax, topOf } from "./scores.js";
import { checkKnown, filled, TokenTable } from "./sentences.js";
import { pasted } from "./strips.js";
import { Tokenizer } from "./tokenizer.js";
import { fromBase64, gunzip } from "./unpack.js";

const packs = {}; // by name: what `loaders` made of them

const loaders = {
  runtime({ tensors }) {
    startRuntime(tensors.script.data, tensors.loader.data, tensors.wasm.data);
    return {};
  },

  async digit({ tensors, metadata }) {
    const prompts = JSON.parse(metadata.prompts).map((row) => ({
      ...row,
      picture: tensors[`${row.name}.picture`].data,
      index: Array.from(tensors[`${row.name}.index`].data),
    }));
    return {
      graph: await loadGraph(tensors.graph.data),
      names: JSON.parse(metadata.class_names),
      prompts,
      digits: tensors.digits.data,
    };
  },

  async clip({ tensors, metadata }) {
    const merges = new TextDecoder().decode(tensors.merges.data).split("\n");
    const told = JSON.parse(metadata.model);
    const embeddings = fromHalf(tensors.token_embedding.data);
    return {
      ...told,
      image: await loadGraph(tensors.image.data),
      text: await loadGraph(tensors.text.data),
      table: new TokenTable(new Tokenizer(merges), tensors.token_rows.data, embeddings, told.context_length),
      frame: tensors.frame.data,
      pictures: tensors.pictures.data,
      remembered: new Map(),
    };
  },

  names({ tensors, metadata }) {
    const told = JSON.parse(metadata.logoprompt);
    return { ...told, context: tensors.context.data, strips: tensors.strips.data, font: tensors.font.data };
  },

  async look({ tensors, metadata }) {
    const told = JSON.parse(metadata.dpt);
    return { ...told, graph: await loadGraph(tensors.graph.data), pictures: tensors.pictures.data };
  },
};

/** What the page needs to know of a pack before anything is asked. */
const told = {
  runtime: () => ({}),
  digit: ({ names, prompts, digits }) => ({
    names,
    digits,
    prompts: prompts.map(({ picture, ...row }) => row),
  }),
  clip: ({ picture_names, pictures, image_size, template, frame_accuracy, plain_accuracy }) => ({
    pictureNames: picture_names,
    pictures,
    side: image_size,
    template,
    accuracies: { plain: plain_accuracy, frame: frame_accuracy },
  }),
  names: ({ class_names: names, context, strips, ...rest }) => ({ names, ...rest }),
  look: ({ class_names, pictures, picture_names, image_size, grid }) => ({
    names: class_names,
    pictures,
    pictureNames: picture_names,
    side: image_size,
    grid,
  }),
};

const answers = {
  /** A pack's text, as its script gave it. */
  async load({ name, text }) {
    if (!packs[name]) packs[name] = await loaders[name](readSafetensors(await gunzip(fromBase64(text))));
    return told[name](packs[name]);
  },

  picture: ({ blob, side }) => readPicture(blob, side),

  /** A drawing as MNIST would have it: ink (width x height) to 28 x 28. */
  centre({ ink, width, height }) {
    const grey = likeMnist(ink, width, height);
    if (!grey) throw new Refusal("The canvas is empty: draw a digit first, or take one of the test digits.");
    return { grey };
  },

  /** ImageNet's logits for a 28 x 28 picture without the prompt, and with it; the mapped probabilities of the digits. */
  async digit({ grey, prompt, strength }) {
    const { graph, prompts } = packs.digit;
    const chosen = prompts.find((row) => row.name === prompt);
    const large = greyPlanes(greyAt(grey, SIDE, chosen.image_size, chosen.resize));
    const plain = onCanvas(large, chosen.image_size, chosen.canvas_size);
    const shown = prompted(plain, chosen.picture, strength);
    const run = async (planes) =>
      (await graph.run({ images: [planes, [1, 3, chosen.canvas_size, chosen.canvas_size]] })).logits;
    // what the network sees without any prompt is the picture alone, as large as its input
    const bare = greyPlanes(greyAt(grey, SIDE, chosen.canvas_size, chosen.resize));
    const [without, source] = [await run(bare), await run(shown)];
    const logits = mapped(source, chosen.index);
    return {
      without: ranked(without, 5),
      source: ranked(source, 5),
      sourceLogits: source,
      logits,
      probabilities: softmax(logits),
      shown: toShown(shown),
      side: chosen.canvas_size,
    };
  },

  /** CLIP's probabilities of the names for a picture, with chapter 4's frame or without; the templates' mean counts. */
  async ask({ rgb, names, templates, frame }) {
    const feature = await imageFeature(framed(rgb, frame));
    const text = await written(names, templates);
    const logits = cosines(feature, text, packs.clip.logit_scale);
    return { logits, probabilities: softmax(logits), shown: toShown(framed(rgb, frame)) };
  },

  /** A picture and what is written on it: zero-shot CLIP, the trained text, and LoGoPrompt's candidates. */
  async write({ rgb, strip, top, template }) {
    const { image_size: side, logit_scale: scale } = packs.clip;
    const { class_names: names, strips, strip_height: height, candidates: count } = packs.names;
    const zeroShot = await written(names, [template]);
    const learned = await trained();
    const picture = strip ? pasted(rgb, strip, side, top) : rgb;
    const feature = await imageFeature(toPlanes(picture));
    const before = cosines(feature, zeroShot, scale);
    const plain = softmax(cosines(feature, learned, scale));
    const candidates = topOf(plain, count);
    const named = [];
    const size = strips.length / names.length;
    for (const c of candidates) {
      const withName = pasted(picture, strips.subarray(c * size, (c + 1) * size), side, side - height);
      named.push(softmax(cosines(await imageFeature(toPlanes(withName)), learned, scale))[c]);
    }
    return {
      zeroShot: softmax(before),
      learned: plain,
      ...reselect(plain, candidates, named),
      shown: toShown(toPlanes(picture)),
    };
  },

  /** DPT's answer and where it looks. */
  async look({ rgb }) {
    const { graph, image_size: side } = packs.look;
    const found = await graph.run({ images: [toPlanes(rgb), [1, 3, side, side]] });
    const patches = found.map.length;
    return {
      plain: softmax(found.plain_logits),
      prompted: softmax(found.logits),
      logits: found.logits,
      chosen: found.chosen,
      plainMap: found.plain_map,
      map: found.map,
      candidateMaps: found.chosen.map((_, k) => found.candidate_maps.slice(k * patches, (k + 1) * patches)),
    };
  },
};

function ranked(logits, count) {
  const probabilities = softmax(logits);
  return topOf(logits, count).map((c) => ({ class: c, probability: probabilities[c] }));
}

function framed(rgb, frame) {
  const planes = toPlanes(rgb);
  return frame ? prompted(planes, packs.clip.frame, 1) : planes;
}

async function imageFeature(planes) {
  const side = packs.clip.image_size;
  return (await packs.clip.image.run({ images: [planes, [1, 3, side, side]] })).features;
}

/** Text features (T, D) of names in templates; the last few are remembered. */
async function written(names, templates) {
  const { table, text, embed_dim: length, remembered } = packs.clip;
  const key = JSON.stringify([names, templates]);
  if (!remembered.has(key)) {
    const sentences = filled(templates, names);
    checkKnown(table, sentences);
    const rows = [];
    for (let from = 0; from < sentences.length; from += 64) {
      const part = sentences.slice(from, from + 64).map((sentence) => table.tokenizer.encode(sentence));
      rows.push(...(await text.run(table.embedded(part))).features);
    }
    if (remembered.size > 8) remembered.delete(remembered.keys().next().value);
    remembered.set(key, ensembled(rows, length, names.length));
  }
  return remembered.get(key);
}

/** Text features of the names behind LoGoPrompt's learned words. */
async function trained() {
  const own = packs.names;
  if (!own.features) {
    const { table, text } = packs.clip;
    const width = table.width;
    const count = own.context.length / (own.class_names.length * width);
    const sentences = own.class_names.map((name, t) => [
      ...Array.from({ length: count }, (_, m) =>
        own.context.subarray((t * count + m) * width, (t * count + m + 1) * width),
      ),
      ...table.tokenizer.encode(`${name}.`),
    ]);
    own.features = (await text.run(table.embedded(sentences))).features;
  }
  return own.features;
}

let last = Promise.resolve();
self.onmessage = ({ data: { id, question, given } }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id, answer: await answers[question](given) });
    } catch (error) {
      self.postMessage({ id, refused: error instanceof Refusal, message: error.message });
    }
  });
};
