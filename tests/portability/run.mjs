// Runs all cases in ONNX Runtime Web (WebAssembly), for `node.mjs` and `index.html`.
//
// cases.json lists each model's batches, [{dims, data}, ...], data being float32 in base64; model k is `k.onnx`. The result
// lists for each model {all, disabled}, its outputs with and without graph optimization, or an error's message.

const encode = (values) => btoa(String.fromCharCode(...new Uint8Array(values.buffer, values.byteOffset, values.byteLength)));
const decode = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

async function runModel(ort, model, batches, graphOptimizationLevel) {
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], graphOptimizationLevel });
  const outputs = [];
  for (const { dims, data } of batches) {
    const results = await session.run({ input: new ort.Tensor("float32", decode(data), dims) });
    outputs.push(encode(results[session.outputNames[0]].data));
  }
  await session.release();
  return outputs;
}

export async function runCases(ort, read) {
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  const results = [];
  for (const [index, batches] of JSON.parse(new TextDecoder().decode(await read("cases.json"))).entries()) {
    const model = await read(`${index}.onnx`);
    const run = (level) => runModel(ort, model, batches, level).catch(String);
    results.push({ all: await run("all"), disabled: await run("disabled") });
  }
  return results;
}
