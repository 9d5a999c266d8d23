// Small parts of which the page's four are made: elements, pictures, tables of probabilities, what chooses a picture.

import { ask, load } from "./client.js";
import { Refusal } from "./refusal.js";

/** An element with attributes (functions are listeners) and children (text or elements). */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** A control with its label in front of it. */
export function labelled(text, control) {
  return element("label", {}, element("span", {}, text), control);
}

export function percent(probability) {
  return `${(100 * probability).toFixed(1)}\u00a0%`;
}

/** A canvas that shows square pictures: `paint(rgba)` of side x side pixels. */
export function screen(label, side) {
  const canvas = element("canvas", { width: side, height: side, role: "img", "aria-label": label });
  canvas.paint = (rgba) => {
    const shown = Math.sqrt(rgba.length / 4);
    if (canvas.width !== shown) canvas.width = canvas.height = shown;
    canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(rgba), shown, shown), 0, 0);
  };
  return canvas;
}

export function opaque(rgb) {
  const rgba = new Uint8ClampedArray((4 * rgb.length) / 3).fill(255);
  for (let i = 0; i < rgb.length / 3; i++) rgba.set(rgb.subarray(3 * i, 3 * i + 3), 4 * i);
  return rgba;
}

/** A table of names and probabilities with bars: `fill(rows)` of `{name, probability, marked}`. */
export function bars(caption) {
  const body = element("tbody");
  const table = element("table", { class: "live-bars" }, element("caption", {}, caption), body);
  table.fill = (rows) => {
    body.replaceChildren(
      ...rows.map(({ name, probability, marked }) =>
        element(
          "tr",
          { class: marked ? "live-best" : undefined, "data-probability": probability },
          element("th", { scope: "row" }, name),
          element("td", {}, bar(probability)),
          element("td", {}, percent(probability)),
        ),
      ),
    );
  };
  return table;
}

function bar(share) {
  const line = element("span", { class: "live-bar", "aria-hidden": "true" });
  line.style.width = `${100 * share}%`;
  return line;
}

/** The first rows of probabilities over `names`, the likeliest first. */
export function likeliest(probabilities, names, count) {
  return Array.from(probabilities, (probability, c) => ({ name: names[c], probability }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, count)
    .map((row, i) => ({ ...row, marked: i === 0 }));
}

/** A line that is read aloud when it changes. */
export function teller() {
  const line = element("p", { class: "live-said", role: "status", "aria-live": "polite" });
  line.say = (text, wrong = false) => {
    line.textContent = text;
    line.classList.toggle("live-wrong", wrong);
  };
  return line;
}

/**
 * Runs `work` with the newest of what was given: while one is under way, others wait, and only the last of them runs.
 * A refusal is told as it is, anything else as a fault.
 */
export function newest(work, said) {
  let busy = false;
  let next = null;
  return async function run(...given) {
    next = given;
    if (busy) return;
    busy = true;
    while (next) {
      const now = next;
      next = null;
      try {
        await work(...now);
      } catch (error) {
        tell(error, said);
      }
    }
    busy = false;
  };
}

export function tell(error, said) {
  said.say(error instanceof Refusal ? error.message : `Something went wrong: ${error.message}`, true);
}

/**
 * A part of the page that is loaded when its button is pressed.
 * @param {HTMLElement} section says in its data which packs, from which folder, and how large they are
 * @param {(told: object, said: HTMLElement) => Node[]} build what takes the button's place
 */
export function startable(section, build) {
  const said = teller();
  const { packs, folder, megabytes } = section.dataset;
  const button = element("button", { type: "button", class: "live-start" }, `Start: load ${megabytes} MB`);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const told = await load(packs.split(" "), folder, (name) => said.say(`Loading: ${name}`));
      said.say("Loaded. From here on nothing is fetched.");
      button.replaceWith(...build(told, said));
      section.dataset.ready = "";
      section.querySelector("select, input, textarea, button")?.focus();
    } catch (error) {
      button.disabled = false;
      tell(error, said);
    }
  });
  section.append(button, said);
}

/**
 * What chooses a picture: bundled ones, a file, a dropped one, the camera if asked for.
 * @param {{pictures: Uint8Array, pictureNames: string[], side: number}} told bundled pictures, side x side RGB
 * @param {(rgb: Uint8Array, name: string) => void} chosen
 */
export function picker(told, chosen, said, camera = false) {
  const { pictures, pictureNames, side } = told;
  const size = 3 * side * side;
  const read = newest(async (blob, name) => {
    said.say("Reading the picture");
    const { rgb, width, height } = await ask("picture", { blob, side });
    said.say(`${name}: ${width} x ${height} pixels, squashed to ${side} x ${side}`);
    chosen(rgb, name);
  }, said);
  const thumbnails = pictureNames.map((name, i) => {
    const rgb = pictures.subarray(i * size, (i + 1) * size);
    const canvas = screen(name, side);
    canvas.paint(opaque(rgb));
    return element("button", { type: "button", title: name, click: () => chosen(rgb.slice(), name) }, canvas);
  });
  const file = element("input", { type: "file", accept: "image/*" });
  file.addEventListener("change", () => {
    if (file.files.length) read(file.files[0], "Your picture");
  });
  const box = element(
    "fieldset",
    { class: "live-picker" },
    element("legend", {}, "A picture"),
    element("div", { class: "live-thumbnails" }, ...thumbnails),
    labelled("your own, or drop it here", file),
  );
  box.addEventListener("dragover", (event) => event.preventDefault());
  box.addEventListener("drop", (event) => {
    event.preventDefault();
    const [dropped] = event.dataTransfer.files;
    if (dropped) read(dropped, "Your picture");
    else said.say("What was dropped is not a file: save the picture first, then drop the file.", true);
  });
  if (camera) box.append(cameraButton(read, said));
  return box;
}

function cameraButton(read, said) {
  const holder = element("div", { class: "live-camera" });
  const open = element("button", { type: "button" }, "Use the camera");
  open.addEventListener("click", async () => {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: true });
    } catch {
      said.say("There is no camera that this page may use: it is asked for, and may be refused.", true);
      return;
    }
    const video = element("video", { autoplay: true, playsinline: true, muted: true, "aria-label": "the camera" });
    video.srcObject = stream;
    const close = () => {
      for (const track of stream.getTracks()) track.stop();
      holder.replaceChildren(open);
    };
    const take = element("button", { type: "button" }, "Take the picture");
    take.addEventListener("click", () => {
      const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob((blob) => read(blob, "The camera's picture"), "image/png");
      close();
    });
    holder.replaceChildren(video, take, element("button", { type: "button", click: close }, "Close the camera"));
  });
  holder.append(open);
  return holder;
}
