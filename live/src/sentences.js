// Class names and templates to what the text tower takes: embedded sentences, and where each one ends.

import { Refusal } from "./refusal.js";

export const MOST_SENTENCES = 400;
const MOST_NAMES = 100;

/** Lines or comma-separated parts of what was typed, without empty ones and repetitions. */
export function parted(text, separator) {
  return [...new Set(text.split(separator).map((part) => part.trim()))].filter(Boolean);
}

/** Every template with every name, template by template; each template has one {}. */
export function filled(templates, names) {
  if (!names.length) throw new Refusal("There is no class name: type one or more, separated by commas.");
  if (!templates.length) throw new Refusal("There is no template: type one, with {} where the class name goes.");
  if (names.length > MOST_NAMES) {
    throw new Refusal(`These are ${names.length} class names; this page takes up to ${MOST_NAMES}.`);
  }
  for (const template of templates) {
    if (template.split("{}").length !== 2 || /[{}]/.test(template.replace("{}", ""))) {
      throw new Refusal(`The template “${template}” needs exactly one {}, where the class name goes.`);
    }
  }
  for (const name of names) {
    if (/[{}]/.test(name)) throw new Refusal(`The class name “${name}” has braces: use words.`);
  }
  if (templates.length * names.length > MOST_SENTENCES) {
    throw new Refusal(
      `${templates.length} templates for ${names.length} names are ${templates.length * names.length} sentences; this ` +
        `page reads up to ${MOST_SENTENCES} at a time.`,
    );
  }
  return templates.flatMap((template) => names.map((name) => template.replace("{}", () => name)));
}

/** The token table of a model that knows a part of CLIP's vocabulary. */
export class TokenTable {
  /**
   * @param {Tokenizer} tokenizer
   * @param {Int32Array} rows ids of the tokens it knows
   * @param {Float32Array} embeddings of these, (R, width)
   */
  constructor(tokenizer, rows, embeddings, contextLength) {
    Object.assign(this, { tokenizer, embeddings, contextLength, width: embeddings.length / rows.length });
    this.rowOf = new Map(Array.from(rows, (id, row) => [id, row]));
  }

  /** Words of a text that the model never met. */
  unknown(text) {
    const words = text.split(/[\s,.;:!?()"]+/).filter(Boolean);
    return words.filter((word) => this.tokenizer.encode(word).some((id) => !this.rowOf.has(id)));
  }

  /**
   * Sentences, embedded and padded to the longest.
   * @param {(number | Float32Array)[][]} sentences token ids, or learned vectors, without start and end
   */
  embedded(sentences) {
    const { start, end } = this.tokenizer;
    const rows = sentences.map((sentence) => [start, ...sentence, end]);
    const length = Math.max(...rows.map((row) => row.length));
    if (length > this.contextLength) {
      throw new Refusal(
        `A sentence has ${length} tokens with start and end, this model reads ${this.contextLength}: shorten it.`,
      );
    }
    const values = new Float32Array(rows.length * length * this.width);
    rows.forEach((row, n) => {
      row.forEach((token, i) => {
        values.set(typeof token === "number" ? this.row(token) : token, (n * length + i) * this.width);
      });
    });
    return {
      embedded: [values, [rows.length, length, this.width]],
      end: [BigInt64Array.from(rows, (row) => BigInt(row.length - 1)), [rows.length]],
    };
  }

  row(id) {
    const row = this.rowOf.get(id);
    if (row === undefined) throw new Refusal("A word here is one that this small model never met.");
    return this.embeddings.subarray(row * this.width, (row + 1) * this.width);
  }
}

/** Refuses sentences with words the model never met, and names them: it cannot know what they mean. */
export function checkKnown(table, texts) {
  const strange = [...new Set(texts.flatMap((text) => table.unknown(text)))];
  if (strange.length) {
    const listed = strange.slice(0, 5).map((word) => `“${word}”`);
    throw new Refusal(
      `This small model never met ${listed.join(", ")}${strange.length > 5 ? " and more" : ""}, so it cannot know ` +
        "what that means: use other words.",
    );
  }
}
