// Runs the cases that lie beside this file and prints the results.

import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import { runCases } from "./run.mjs";

const results = await runCases(ort, async (name) => new Uint8Array(await readFile(new URL(name, import.meta.url))));
process.stdout.write(JSON.stringify(results));
