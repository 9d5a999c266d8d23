// Draw a digit: ImageNet's answers without the prompt, the digit's with it, and the mapping between the two.

import { arrows } from "./arrows.js";
import { ask } from "./client.js";
import { bars, element, labelled, likeliest, newest, percent, screen, startable } from "./controls.js";
import { SIDE } from "./digit.js";
import { drawing } from "./drawing.js";

export function digitPart(section) {
  startable(section, ({ digit: { names, prompts, digits } }, said) => {
    let grey = null;
    const sees = screen("what the network is given: your digit with the prompt", 96);
    const without = bars("Without the prompt: ImageNet's five likeliest");
    const withPrompt = bars("With the prompt: the ten digits");
    const links = element("div", { class: "live-arrows" });
    const about = element("p");
    const prompt = element(
      "select",
      {},
      ...prompts.map(({ name, title }) => element("option", { value: name }, title)),
    );
    const strength = element("input", { type: "range", min: 0, max: 1, step: 0.05, value: 1 });
    const shownStrength = element("output", {}, "1.00");

    const answer = newest(async () => {
      if (!grey) return;
      const row = prompts.find(({ name }) => name === prompt.value);
      const found = await ask("digit", { grey, prompt: row.name, strength: Number(strength.value) });
      sees.paint(found.shown);
      without.fill(
        found.without.map(({ class: c, probability }, i) => ({ name: names[c], probability, marked: i === 0 })),
      );
      const digitNames = row.index.map((_, t) => String(t));
      const best = likeliest(found.probabilities, digitNames, 1)[0];
      withPrompt.fill(
        digitNames.map((name, t) => ({ name, probability: found.probabilities[t], marked: name === best.name })),
      );
      links.replaceChildren(
        arrows(
          row.index,
          row.index.map((source) => names[source]),
          digitNames,
          found.probabilities,
        ),
      );
      said.say(
        `Without the prompt: ${names[found.without[0].class]}. With it, at strength ${strength.value}: ` +
          `${best.name} (${percent(best.probability)}).`,
      );
      section.dataset.answers = Number(section.dataset.answers ?? 0) + 1;
    }, said);
    const read = newest(async (ink, side) => {
      ({ grey } = await ask("centre", { ink, width: side, height: side }));
      await answer();
    }, said);
    const describe = () => {
      const { title, accuracy, n_test: count, where } = prompts.find(({ name }) => name === prompt.value);
      about.textContent = `${title}: ${percent(accuracy)} of ${count} test digits right. ${where}`;
    };

    const paper = drawing(read, () => {
      grey = null;
      said.say("The canvas is empty.");
    });
    const test = element(
      "select",
      {},
      element("option", { value: "" }, "none"),
      ...Array.from({ length: digits.length / SIDE ** 2 }, (_, i) =>
        element("option", { value: i }, `number ${i + 1}`),
      ),
    );
    test.addEventListener("change", () => {
      if (test.value === "") return;
      grey = digits.slice(SIDE ** 2 * test.value, SIDE ** 2 * (Number(test.value) + 1));
      paper.show(grey, SIDE);
      answer();
    });
    prompt.addEventListener("change", () => {
      describe();
      answer();
    });
    strength.addEventListener("input", () => {
      shownStrength.textContent = Number(strength.value).toFixed(2);
      answer();
    });
    describe();
    return [
      element(
        "div",
        { class: "live-columns" },
        element("div", {}, paper.box, labelled("or a test digit", test)),
        element(
          "div",
          {},
          labelled("prompt", prompt),
          labelled("strength", strength),
          shownStrength,
          element("figure", {}, sees, element("figcaption", {}, "what the network is given")),
        ),
      ),
      about,
      element("div", { class: "live-columns" }, without, withPrompt),
      links,
    ];
  });
}
