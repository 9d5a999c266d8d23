// The page's side of the worker: packs are scripts that call `vpkitLive.pack`, questions are promises.

import { Refusal } from "./refusal.js";

const waiting = new Map();
const loaded = new Map(); // packs by name: a promise of what the worker told of them
const arrived = new Map();
let worker = null;
let number = 0;

/** Called by a pack's script. */
export function pack(name, text) {
  arrived.get(name)?.(text);
}

/** One question to the worker; refusals come as `Refusal`, with a sentence for the reader. */
export function ask(question, given) {
  return new Promise((resolve, reject) => {
    number += 1;
    waiting.set(number, { resolve, reject });
    worker.postMessage({ id: number, question, given });
  });
}

/**
 * Loads packs, each once: its script, and from it the worker.
 * @param {string[]} names in order; the first time the runtime, and with it the worker's own text, come before them
 * @param {(name: string) => void} began
 */
export async function load(names, folder, began = () => {}) {
  const found = {};
  for (const name of ["runtime", ...names]) {
    if (!loaded.has(name)) {
      began(name);
      loaded.set(name, arrive(name, folder));
    }
    try {
      found[name] = await loaded.get(name);
    } catch (error) {
      loaded.delete(name);
      throw error;
    }
  }
  return found;
}

async function arrive(name, folder) {
  if (!worker) startWorker(await scriptText("worker", folder));
  return ask("load", { name, text: await scriptText(name, folder) });
}

function scriptText(name, folder) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const done = (settle, value) => {
      arrived.delete(name);
      script.remove();
      settle(value);
    };
    arrived.set(name, (text) => done(resolve, text));
    script.onerror = () => done(reject, new Refusal(`The file ${name}.js is not where the page looks for it.`));
    script.src = `${folder}/${name}.js`;
    document.head.append(script);
  });
}

function startWorker(text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  worker = new Worker(address);
  URL.revokeObjectURL(address);
  worker.onmessage = ({ data: { id, answer, refused, message } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (message === undefined) resolve(answer);
    else reject(refused ? new Refusal(message) : new Error(message));
  };
  worker.onerror = (event) => stop(new Error(event.message || "the worker stopped"));
}

/** Ends the worker and with it all that was loaded. */
export function stop(reason = new Refusal("The models were let go.")) {
  worker?.terminate();
  worker = null;
  loaded.clear();
  for (const { reject } of waiting.values()) reject(reason);
  waiting.clear();
}
