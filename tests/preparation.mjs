// The page's own arithmetic (ttca/page/pixels.js) in node; tests/test_preparation.py compares it with Python.
// Reads one JSON task a line: {width, height, fit, size: [height, width], box, seed}; writes the SHA-256 of each result.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const source = readFileSync(new URL("../ttca/page/pixels.js", import.meta.url), "utf8");
const { prepared } = new Function(`${source}\nreturn { prepared };`)();

// The same levels as in Python: Lehmer's generator, whose products stay below 2^53.
function noise(w, h, seed) {
  let state = seed;
  const levels = new Uint8Array(w * h * 4).fill(255);
  for (let i = 0; i < levels.length; i++) if (i % 4 < 3) levels[i] = (state = (state * 48271) % 2147483647) >> 8;
  const rgba = (x, y, width, height) => {
    const out = new Uint8Array(width * height * 4);
    for (let row = 0; row < height; row++) {
      const from = ((y + row) * w + x) * 4;
      out.set(levels.subarray(from, from + width * 4), row * width * 4);
    }
    return out;
  };
  return { w, h, rgba };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { width, height, fit, size, box, seed } = JSON.parse(line);
  const levels = prepared(noise(width, height, seed), { fit, size }, box);
  console.log(createHash("sha256").update(levels).digest("hex"));
}
