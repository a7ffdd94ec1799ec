// The third-party platform of `fairface-faceapi`: the age-gender network of @vladmandic/face-api behind Node's own http
// module. PNG files of 112×112 pixels in JSON come in, and what the package says of each goes out.
// Usage: node _age_gender_server.mjs FOLDER, where FOLDER/node_modules holds the packages.
import { createRequire } from "node:module";
import { join } from "node:path";
import { serve } from "./_json_server.mjs";

const folder = process.argv[2];
const require = createRequire(join(folder, "package.json"));
const tf = require("@tensorflow/tfjs");
require("@tensorflow/tfjs-backend-wasm");
const { PNG } = require("pngjs");
const faceapi = require("@vladmandic/face-api/dist/face-api.node-wasm.js");

const SIDE = 112;
await tf.setBackend("wasm");
await tf.ready();
await faceapi.nets.ageGenderNet.loadFromDisk(join(folder, "node_modules", "@vladmandic", "face-api", "model"));

function pixels(file) {
  const png = PNG.sync.read(Buffer.from(file, "base64"));
  if (png.width !== SIDE || png.height !== SIDE) {
    throw new Error(`Expected ${SIDE}×${SIDE} pixels, got ${png.width}×${png.height}.`);
  }
  return tf.tidy(() => tf.tensor3d(png.data, [SIDE, SIDE, 4], "int32").slice([0, 0, 0], [-1, -1, 3]));
}

async function answer(body) {
  const faces = JSON.parse(body).images.map(pixels);
  try {
    const said = await faceapi.nets.ageGenderNet.predictAgeAndGender(faces);
    return { faces: said.map(told) };
  } finally {
    faces.forEach((face) => face.dispose());
  }
}

// The package names one gender and its probability: the other's is the rest.
function told({ age, gender, genderProbability }) {
  const male = gender === "male" ? genderProbability : 1 - genderProbability;
  return { age, gender, genderProbability, scores: { male, female: 1 - male } };
}

serve(answer);
