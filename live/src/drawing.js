// A canvas to draw on, by pointer or by keys: arrow keys move the pen, the space bar puts it down and lifts it.

import { element } from "./controls.js";

const SIDE = 280;
const PEN = 22;
const STEP = 10;

/**
 * @param {(ink: Uint8Array, side: number) => void} drawn after each stroke: how much ink is where
 * @param {() => void} cleared
 */
export function drawing(drawn, cleared) {
  const canvas = element("canvas", {
    width: SIDE,
    height: SIDE,
    class: "live-paper",
    tabindex: 0,
    role: "application",
    "aria-label":
      "a canvas: draw a digit with the pointer, or move the pen with the arrow keys, space puts it down or lifts it",
  });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(context, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
  let [x, y, down] = [SIDE / 2, SIDE / 2, false];
  const pen = element("output", { class: "live-pen" }, "pen up");

  const clear = () => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, SIDE, SIDE);
  };
  const lineTo = (toX, toY) => {
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(toX, toY);
    context.stroke();
    [x, y] = [toX, toY];
  };
  const finished = () => {
    const rgba = context.getImageData(0, 0, SIDE, SIDE).data;
    drawn(
      Uint8Array.from({ length: SIDE * SIDE }, (_, i) => rgba[4 * i]),
      SIDE,
    );
  };
  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * SIDE) / box.width, ((event.clientY - box.top) * SIDE) / box.height];
  };

  let drawingNow = false;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    drawingNow = true;
    [x, y] = placeOf(event);
    lineTo(x, y);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drawingNow) lineTo(...placeOf(event));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (drawingNow) finished();
      drawingNow = false;
    });
  }

  const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  canvas.addEventListener("keydown", (event) => {
    const inside = (value) => Math.min(SIDE - PEN / 2, Math.max(PEN / 2, value));
    if (event.key === " ") {
      down = !down;
      if (down) lineTo(x, y);
      else finished();
    } else if (moves[event.key]) {
      const to = [inside(x + moves[event.key][0]), inside(y + moves[event.key][1])];
      if (down) lineTo(...to);
      else [x, y] = to;
    } else return;
    pen.textContent = `pen ${down ? "down" : "up"}, ${Math.round(x / STEP)} right, ${Math.round(y / STEP)} down`;
    event.preventDefault();
  });

  const button = element("button", { type: "button" }, "Clear");
  button.addEventListener("click", () => {
    clear();
    cleared();
  });
  const send = element("button", { type: "button", click: finished }, "Ask");
  clear();
  return {
    box: element("div", { class: "live-drawing" }, canvas, element("p", {}, button, " ", send, " ", pen)),
    /** Shows a grey picture, side x side, in place of what was drawn. */
    show(grey, side) {
      const small = element("canvas", { width: side, height: side });
      const rgba = Uint8ClampedArray.from({ length: 4 * grey.length }, (_, i) => (i % 4 === 3 ? 255 : grey[i >> 2]));
      small.getContext("2d").putImageData(new ImageData(rgba, side, side), 0, 0);
      context.drawImage(small, 0, 0, SIDE, SIDE);
    },
  };
}
