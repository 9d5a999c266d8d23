// What the page runs: each part waits behind its button.

import { ask, pack, stop } from "./client.js";
import { element } from "./controls.js";
import { clipPart } from "./part_clip.js";
import { digitPart } from "./part_digit.js";
import { lookPart } from "./part_look.js";
import { writePart } from "./part_write.js";

const parts = { digit: digitPart, clip: clipPart, write: writePart, look: lookPart };

window.vpkitLive = { ask, pack, stop };
const begun = [];
for (const section of document.querySelectorAll("[data-live]")) {
  parts[section.dataset.live](section);
  begun.push({ section, about: [...section.childNodes] });
}

// Everything can be let go again: the worker with its models, and what the parts show.
for (const place of document.querySelectorAll("[data-live-stop]")) {
  const button = element("button", { type: "button" }, "Let go of all models");
  button.addEventListener("click", () => {
    stop();
    for (const { section } of begun) {
      section.replaceChildren();
      delete section.dataset.ready;
      parts[section.dataset.live](section);
    }
  });
  place.append(button);
}
window.addEventListener("pagehide", (event) => {
  if (!event.persisted) stop();
});
