// What is made of logits.

export function softmax(logits) {
  const top = logits.reduce((a, b) => Math.max(a, b));
  const powers = Array.from(logits, (logit) => Math.exp(logit - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** The places of the `count` largest values, the largest first; of equals the first. */
export function topOf(values, count) {
  return Array.from(values.keys())
    .sort((a, b) => values[b] - values[a] || a - b)
    .slice(0, count);
}

/** Hard label mapping: target logit t is source logit `index[t]`. */
export function mapped(sourceLogits, index) {
  return Array.from(index, (source) => sourceLogits[source]);
}

/** A unit image feature (D) and class features (T, D), row by row, to scaled cosines (T). */
export function cosines(feature, text, scale) {
  const length = feature.length;
  return Array.from({ length: text.length / length }, (_, t) => {
    let sum = 0;
    for (let d = 0; d < length; d++) sum += feature[d] * text[t * length + d];
    return scale * sum;
  });
}

/** Rows (N, D) in groups of equal place, template by template (N = J T): their mean of length 1, (T, D). */
export function ensembled(rows, length, classes) {
  const means = new Float32Array(classes * length);
  for (let i = 0; i < rows.length; i++) means[i % means.length] += rows[i];
  for (let t = 0; t < classes; t++) {
    const row = means.subarray(t * length, (t + 1) * length);
    const norm = Math.hypot(...row);
    row.forEach((value, d) => {
      row[d] = value / norm;
    });
  }
  return means;
}

/**
 * LoGoPrompt's selection: of the K likeliest classes the one with the best max(p(c | x), p(c | x_c)).
 * @param {number[]} plain (T) p(c | x)
 * @param {number[]} candidates (K) the likeliest classes, in order
 * @param {number[]} named (K) p(c | x_c), each with its own name on the picture
 */
export function reselect(plain, candidates, named) {
  const rows = candidates.map((c, k) => ({
    class: c,
    plain: plain[c],
    named: named[k],
    min: Math.min(plain[c], named[k]),
    max: Math.max(plain[c], named[k]),
  }));
  const best = rows.reduce((a, b) => (b.max > a.max ? b : a));
  return { rows, prediction: best.class, changed: best.class !== candidates[0] };
}
