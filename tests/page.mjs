// The page's own files (ttca/page/pixels.js, files.js) in node; tests/test_publishing.py compares them with Python.
// Reads one JSON task: {page, png: [{levels, w, h}], seed}; writes what the page makes of them, in base64.
import { readFileSync } from "node:fs";

const folder = new URL("../ttca/page/", import.meta.url);
const source = ["pixels.js", "files.js"].map((name) => readFileSync(new URL(name, folder), "utf8")).join("");
const { checkedSignature, fromBase64, moved, png, readSet, unpacked } = new Function(
  `${source}\nreturn { checkedSignature, fromBase64, moved, png, readSet, unpacked };`,
)();
const base64 = (bytes) => Buffer.from(bytes).toString("base64");

const { set, signature, spoilt, streams, pictures } = JSON.parse(readFileSync(0, "utf8"));
const packed = fromBase64(set);
const bytes = await unpacked(packed);
const known = readSet(bytes);
const { delta, ...facts } = known;
const damaged = bytes.slice();
damaged[damaged.length - 1] ^= 1;
const files = [];
for (const { levels, w, h, c } of pictures) {
  const after = moved(fromBase64(levels), c === null ? new Int8Array(w * h * 3) : delta[c], facts.epsilon);
  files.push([base64(await png(after, w, h)), base64(await png(after, w, h, true))]);
}
console.log(
  JSON.stringify({
    facts,
    files,
    both: base64(bytes) === base64(await unpacked(packed, true)),
    streams: await Promise.all(streams.map(async (one) => base64(await unpacked(fromBase64(one), true)))),
    signed: await checkedSignature(bytes, signature),
    damaged: (await checkedSignature(damaged, signature)).state,
    spoilt: await Promise.all(spoilt.map(async (text) => (await checkedSignature(bytes, text)).state)),
  }),
);
