// onnxruntime-web inside the worker, from bytes that are already here: one thread, nothing is fetched.

let ort = null;

/**
 * @param {Uint8Array} script the library, a classic script that sets `ort`
 * @param {Uint8Array} loader its module of glue, which it imports by address
 * @param {Uint8Array} wasm
 */
export function startRuntime(script, loader, wasm) {
  const address = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
  const library = address(script);
  importScripts(library);
  URL.revokeObjectURL(library);
  ort = self.ort;
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  ort.env.wasm.wasmBinary = wasm.buffer;
  ort.env.wasm.wasmPaths = { mjs: address(loader) };
}

/** A graph ready to run. */
export async function loadGraph(bytes) {
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  return new Graph(session);
}

class Graph {
  constructor(session) {
    this.session = session;
  }

  /**
   * Runs it once.
   * @param {Record<string, [Float32Array | BigInt64Array, number[]]>} inputs values and shape, by name
   * @returns {Promise<Record<string, Float32Array | number[]>>} values by name, copied: the runtime's own are freed
   */
  async run(inputs) {
    const feeds = {};
    for (const [name, [values, shape]] of Object.entries(inputs)) {
      feeds[name] = new ort.Tensor(values instanceof Float32Array ? "float32" : "int64", values, shape);
    }
    const outputs = await this.session.run(feeds);
    const found = {};
    for (const [name, tensor] of Object.entries(outputs)) {
      found[name] = tensor.type === "int64" ? Array.from(tensor.data, Number) : Float32Array.from(tensor.data);
      tensor.dispose();
    }
    for (const tensor of Object.values(feeds)) tensor.dispose();
    return found;
  }

  async release() {
    await this.session.release();
  }
}
