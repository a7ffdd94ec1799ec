// An image API as a small firm writes one with Node's own http module: a PNG in JSON comes in, names and scores go out.
// The label is the red level of the first pixel, modulo the number of classes. Usage: node _face_api.mjs CLASSES
import { inflateSync } from "node:zlib";
import { serve } from "./_json_server.mjs";

const classes = Number(process.argv[2]);
const SIGNATURE = "89504e470d0a1a0a";

function firstLevel(file) {
  if (file.subarray(0, 8).toString("hex") !== SIGNATURE) throw new Error("Expected a PNG file, got another.");
  const data = [];
  for (let at = 8; at < file.length; at += 12 + file.readUInt32BE(at)) {
    const kind = file.toString("latin1", at + 4, at + 8);
    if (kind === "IDAT") data.push(file.subarray(at + 8, at + 8 + file.readUInt32BE(at)));
  }
  // Whatever the first row's filter, its first byte is the level itself.
  return inflateSync(Buffer.concat(data))[1];
}

function answer(body) {
  const label = firstLevel(Buffer.from(JSON.parse(body).image, "base64")) % classes;
  const scores = {};
  for (let k = 0; k < classes; k++) scores[`class-${k}`] = k === label ? 1 - 0.01 * (classes - 1) : 0.01;
  return { faces: [{ label: `class-${label}`, scores }] };
}

serve(answer);
