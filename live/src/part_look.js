// Where it looks: the attention of DPT's class token, without and with the prompt, and of each candidate's token.

import { ask } from "./client.js";
import { element, newest, opaque, percent, picker, startable } from "./controls.js";

const SHOWN = 192; // pixels of a map's side

export function lookPart(section) {
  startable(section, ({ look }, said) => {
    const { names, grid, side } = look;
    const whole = element("div", { class: "live-maps" });
    const each = element("div", { class: "live-maps" });
    const answer = newest(async (rgb) => {
      const found = await ask("look", { rgb });
      const best = (p) => names[p.indexOf(Math.max(...p))];
      const view = (map, text) => overlaid(rgb, side, map, grid, text);
      whole.replaceChildren(
        view(found.plainMap, `zero-shot: ${best(found.plain)} (${percent(Math.max(...found.plain))})`),
        view(found.map, `DPT: ${best(found.prompted)} (${percent(Math.max(...found.prompted))})`),
      );
      each.replaceChildren(
        ...found.chosen.map((c, k) => view(found.candidateMaps[k], `${names[c]} (${percent(found.prompted[c])})`)),
      );
      said.say(`Zero-shot says ${best(found.plain)}, DPT ${best(found.prompted)}.`);
      section.dataset.answers = Number(section.dataset.answers ?? 0) + 1;
    }, said);
    return [
      picker(look, (rgb) => answer(rgb), said),
      element("h3", {}, "The class token in the last block, without and with the prompt"),
      whole,
      element("h3", {}, "The token of each candidate"),
      each,
    ];
  });
}

/** A picture under a map of its cells: the brighter, the more attention; the cell with most of it is white. */
function overlaid(rgb, side, map, grid, text) {
  const canvas = element("canvas", { width: SHOWN, height: SHOWN, role: "img" });
  const context = canvas.getContext("2d");
  const small = element("canvas", { width: side, height: side });
  small.getContext("2d").putImageData(new ImageData(opaque(rgb), side, side), 0, 0);
  context.drawImage(small, 0, 0, SHOWN, SHOWN);
  const cells = element("canvas", { width: grid, height: grid });
  const top = Math.max(...map);
  const dark = new Uint8ClampedArray(4 * map.length);
  for (let i = 0; i < map.length; i++) dark.set([20, 10, 60, 235 * (1 - map[i] / top)], 4 * i);
  cells.getContext("2d").putImageData(new ImageData(dark, grid, grid), 0, 0);
  context.drawImage(cells, 0, 0, SHOWN, SHOWN);
  const most = map.indexOf(top);
  const where = `row ${Math.floor(most / grid) + 1}, column ${(most % grid) + 1} of ${grid}`;
  canvas.setAttribute("aria-label", `attention map, ${text}: most at ${where}`);
  return element("figure", {}, canvas, element("figcaption", {}, text));
}
