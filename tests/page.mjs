// The page's own files (ttca/page/pixels.js, files.js) in node; tests/test_publishing.py compares them with Python.
// Reads one JSON task and writes what the page makes of each of its parts; bytes are in base64.
import { readFileSync } from "node:fs";

const folder = new URL("../ttca/page/", import.meta.url);
const source = ["pixels.js", "files.js"].map((name) => readFileSync(new URL(name, folder), "utf8")).join("");
const { checkedSignature, fromBase64, moved, png, readSet, resample, turned, unpacked, withoutTurn } = new Function(
  `${source}\nreturn { checkedSignature, fromBase64, moved, png, readSet, resample, turned, unpacked, withoutTurn };`,
)();
const base64 = (bytes) => Buffer.from(bytes).toString("base64");

const { set, signature, spoilt, streams, pictures, photos } = JSON.parse(readFileSync(0, "utf8"));
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
const upright = photos.map(({ file, levels, w, h }) => {
  const { bytes: asks, way } = withoutTurn(fromBase64(file));
  const all = fromBase64(levels);
  const rgba = (x, y, width, height) => {
    const out = new Uint8Array(width * height * 4);
    for (let row = 0; row < height; row++) {
      const from = ((y + row) * w + x) * 4;
      out.set(all.subarray(from, from + width * 4), row * width * 4);
    }
    return out;
  };
  const picture = turned({ w, h, rgba }, way);
  const part = [1, 1, picture.w - 1, picture.h - 1];
  return { way, file: base64(asks), part: base64(resample(picture, part, part[2], part[3])) };
});
console.log(
  JSON.stringify({
    facts,
    upright,
    files,
    both: base64(bytes) === base64(await unpacked(packed, true)),
    streams: await Promise.all(streams.map(async (one) => base64(await unpacked(fromBase64(one), true)))),
    signed: await checkedSignature(bytes, signature),
    damaged: (await checkedSignature(damaged, signature)).state,
    spoilt: await Promise.all(spoilt.map(async (text) => (await checkedSignature(bytes, text)).state)),
  }),
);
