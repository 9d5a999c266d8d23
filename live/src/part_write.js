// Write on it: a word pasted on a picture; zero-shot CLIP believes it, text trained with LoGoPrompt less so.

import { ask } from "./client.js";
import { bars, element, labelled, likeliest, newest, percent, picker, screen, startable } from "./controls.js";
import { stripOf, useFont } from "./lettering.js";
import { colours } from "./strips.js";

export function writePart(section) {
  startable(section, ({ clip, names: told }, said) => {
    const { names, font, candidates, strip_height: height, n_test: count, called_as_written: called } = told;
    const { plain, trained } = called;
    const about =
      `Of ${count} test icons with a wrong name written on them, zero-shot CLIP called ${percent(plain)} by that name, ` +
      `the trained text ${percent(trained)}.`;
    const lettering = useFont(font);
    let rgb = null;
    let paint = colours();
    const sees = screen("the picture with the word", clip.side);
    const word = element("input", { type: "text", value: "telephone", maxlength: 60 });
    const top = element("input", { type: "range", min: 0, max: clip.side - height, value: 0 });
    const template = element("input", { type: "text", value: "a photo of a {}." });
    const zeroShot = bars("Zero-shot CLIP");
    const learned = bars("The text that LoGoPrompt trained");
    const body = element("tbody");
    const head = ["candidate", "without its name", "with its name", "min", "max"];
    const table = element(
      "table",
      { class: "live-candidates" },
      element("caption", {}, `LoGoPrompt's ${candidates} candidates, each with its own name pasted at the bottom`),
      element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
      body,
    );
    const answer = newest(async () => {
      if (!rgb) {
        said.say("There is no picture yet: choose one, or drop your own.");
        return;
      }
      await lettering;
      const text = word.value.trim();
      const strip = text ? stripOf(text, clip.side, height, paint) : null;
      const given = { rgb, top: Number(top.value), template: template.value };
      const before = await ask("write", { ...given, strip: null });
      const found = strip ? await ask("write", { ...given, strip }) : before;
      sees.paint(found.shown);
      zeroShot.fill(likeliest(found.zeroShot, names, 5));
      learned.fill(likeliest(found.learned, names, 5));
      body.replaceChildren(
        ...found.rows.map((row) =>
          element(
            "tr",
            { class: row.class === found.prediction ? "live-best" : undefined },
            element("th", { scope: "row" }, names[row.class]),
            ...[row.plain, row.named, row.min, row.max].map((value) => element("td", {}, percent(value))),
          ),
        ),
      );
      const first = (probabilities) => likeliest(probabilities, names, 1)[0].name;
      said.say(
        `Zero-shot says ${first(before.zeroShot)} without the word${text ? `, ${first(found.zeroShot)} with it` : ""}; ` +
          `the trained text ${first(before.learned)}${text ? `, ${first(found.learned)}` : ""}. ` +
          `The best of the maxima is ${names[found.prediction]}: that is LoGoPrompt's decision.`,
      );
      section.dataset.answers = Number(section.dataset.answers ?? 0) + 1;
    }, said);
    const chosen = (picture) => {
      rgb = picture;
      answer();
    };
    for (const control of [word, template]) control.addEventListener("change", answer);
    top.addEventListener("input", answer);
    const again = element("button", { type: "button" }, "Other colours");
    again.addEventListener("click", () => {
      paint = colours();
      answer();
    });
    return [
      element("p", {}, about),
      picker(clip, chosen, said),
      labelled("a word, or nothing", word),
      labelled("where: from the top down", top),
      labelled("zero-shot template", template),
      element("p", {}, element("button", { type: "button", click: answer }, "Ask"), " ", again),
      element(
        "div",
        { class: "live-columns" },
        element("figure", {}, sees, element("figcaption", {}, "what the network is given")),
        zeroShot,
        learned,
      ),
      element(
        "div",
        { class: "live-scrolled", tabindex: 0, role: "region", "aria-label": "LoGoPrompt's candidates" },
        table,
      ),
    ];
  });
}
