// The label mapping as a drawing: source classes on the left, target classes on the right, an arrow for each pair.

const SPACE = "http://www.w3.org/2000/svg";
const [WIDTH, ROW] = [360, 22];

/**
 * @param {number[]} index (T) source class of each target class
 * @param {string[]} sourceNames (T) of these
 * @param {string[]} targetNames (T)
 * @param {number[]} probabilities (T): the likelier, the thicker the arrow
 */
export function arrows(index, sourceNames, targetNames, probabilities) {
  const order = Array.from(index.keys()).sort((a, b) => index[a] - index[b]);
  const height = ROW * index.length + 6;
  const picture = drawn("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img" });
  const pairs = targetNames.map((name, t) => `${name} is read from ${sourceNames[t]}`);
  picture.setAttribute("aria-label", `The mapping: ${pairs.join("; ")}`);
  order.forEach((t, row) => {
    const [from, to] = [row, t].map((place) => ROW * (place + 0.5) + 3);
    const strong = probabilities[t] === Math.max(...probabilities);
    picture.append(
      text(198, from, short(sourceNames[t]), "end", strong),
      text(338, to, targetNames[t], "start", strong),
      drawn("path", {
        d: `M204 ${from} C 260 ${from}, 270 ${to}, 326 ${to} m -6 -4 l 6 4 l -6 4`,
        fill: "none",
        stroke: "currentColor",
        "stroke-width": 0.7 + 4 * probabilities[t],
        opacity: 0.35 + 0.65 * probabilities[t],
      }),
    );
  });
  return picture;
}

function short(name) {
  return name.length > 26 ? `${name.slice(0, 25)}…` : name;
}

function text(x, y, value, anchor, strong) {
  const made = drawn("text", { x, y: y + 4, "text-anchor": anchor, "font-size": 13, fill: "currentColor" });
  if (strong) made.setAttribute("font-weight", "bold");
  made.textContent = value;
  return made;
}

function drawn(tag, attributes) {
  const made = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
