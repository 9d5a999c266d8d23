// Ask CLIP: a picture, class names and templates as the reader types them; the text tower runs here too.

import { ask } from "./client.js";
import { bars, element, labelled, likeliest, newest, percent, picker, screen, startable } from "./controls.js";
import { parted } from "./sentences.js";

const SHOWN = 12; // rows of the table

export function clipPart(section) {
  startable(section, ({ clip }, said) => {
    let rgb = null;
    const sees = screen("what the network is given", clip.side);
    const table = bars("The class names");
    const names = element("textarea", { rows: 3 }, "cat, cow, umbrella, airplane, star, house, flower, key");
    const templates = element("textarea", { rows: 2 }, clip.template);
    const frame = element("input", { type: "checkbox" });
    const answer = newest(async () => {
      if (!rgb) {
        said.say("There is no picture yet: choose one, or drop your own.");
        return;
      }
      const asked = parted(names.value, /[,\n]/);
      const found = await ask("ask", {
        rgb,
        names: asked,
        templates: parted(templates.value, "\n"),
        frame: frame.checked,
      });
      sees.paint(found.shown);
      const rows = likeliest(found.probabilities, asked, SHOWN);
      table.fill(rows);
      const cut = asked.length > SHOWN ? ` Of ${asked.length} names the ${SHOWN} likeliest are shown.` : "";
      said.say(`${rows[0].name} (${percent(rows[0].probability)}).${cut}`);
      section.dataset.answers = Number(section.dataset.answers ?? 0) + 1;
    }, said);
    const chosen = (picture) => {
      rgb = picture;
      answer();
    };
    for (const control of [names, templates, frame]) control.addEventListener("change", answer);
    const { plain, frame: framed } = clip.accuracies;
    return [
      picker(clip, chosen, said, true),
      labelled("class names, separated by commas", names),
      labelled("templates, one a line, {} for the name", templates),
      element(
        "label",
        { class: "live-check" },
        frame,
        " with the frame that chapter 4 learned for its icons ",
        `(${percent(plain)} of its test icons are right without it, ${percent(framed)} with it)`,
      ),
      element("p", {}, element("button", { type: "button", click: answer }, "Ask")),
      element(
        "div",
        { class: "live-columns" },
        element("figure", {}, sees, element("figcaption", {}, "what the network is given")),
        table,
      ),
    ];
  });
}
