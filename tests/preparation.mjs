// The arithmetic of docs/preparation.md as a web page would write it; tests/test_preparation.py compares it with Python.
// Reads one JSON task a line: {width, height, fit, size: [height, width], box, seed}; writes the SHA-256 of each result.
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";

const LANCZOS = Array.from({ length: 385 }, (_, t) => {
  const x = (Math.PI * t) / 128;
  return t ? Math.round((16384 * 3 * Math.sin(x) * Math.sin(x / 3)) / (x * x)) : 16384;
});

const rounded = (a, b, most) => Math.min(most, Math.max(1, Math.floor((2 * a + b) / (2 * b))));

function coefficients(n, wanted, k, samples) {
  const u = 2 * Math.max(n, wanted * k);
  return Array.from({ length: wanted }, (_, j) => {
    const weights = Array.from({ length: samples }, (_, i) => {
      const a = Math.abs((2 * i + 1) * wanted * k - (2 * j + 1) * n);
      return LANCZOS[Math.floor((256 * a + u) / (2 * u))] ?? 0;
    });
    const total = weights.reduce((sum, weight) => sum + weight);
    const q = weights.map((weight) => Math.floor((32768 * weight + total) / (2 * total)));
    q[q.indexOf(Math.max(...q))] += 16384 - q.reduce((sum, share) => sum + share);
    return q;
  });
}

function resample({ levels, w, h }, W, H) {
  if (w === W && h === H) return { levels, w, h };
  const kx = Math.max(1, Math.floor(w / (2 * W)));
  const ky = Math.max(1, Math.floor(h / (2 * H)));
  const [mx, my] = [Math.ceil(w / kx), Math.ceil(h / ky)];
  const means = new Float64Array(mx * my * 3);
  for (let y = 0; y < my; y++) for (let x = 0; x < mx; x++) for (let c = 0; c < 3; c++) {
    const [bottom, right] = [Math.min(h, (y + 1) * ky), Math.min(w, (x + 1) * kx)];
    const m = (bottom - y * ky) * (right - x * kx);
    let s = 0;
    for (let b = y * ky; b < bottom; b++) for (let a = x * kx; a < right; a++) s += levels[(b * w + a) * 3 + c];
    means[(y * mx + x) * 3 + c] = Math.floor((512 * s + m) / (2 * m));
  }
  const [qx, qy] = [coefficients(w, W, kx, mx), coefficients(h, H, ky, my)];
  const across = new Float64Array(my * W * 3);
  for (let y = 0; y < my; y++) for (let x = 0; x < W; x++) for (let c = 0; c < 3; c++) {
    let sum = 0;
    for (let i = 0; i < mx; i++) sum += qx[x][i] * means[(y * mx + i) * 3 + c];
    across[(y * W + x) * 3 + c] = Math.floor((sum + 8192) / 16384);
  }
  const out = new Uint8Array(H * W * 3);
  for (let y = 0; y < H; y++) for (let x = 0; x < W; x++) for (let c = 0; c < 3; c++) {
    let sum = 0;
    for (let i = 0; i < my; i++) sum += qy[y][i] * across[(i * W + x) * 3 + c];
    out[(y * W + x) * 3 + c] = Math.min(255, Math.max(0, Math.floor((sum + 2097152) / 4194304)));
  }
  return { levels: out, w: W, h: H };
}

function cut({ levels, w }, left, top, width, height) {
  const out = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * w + left) * 3;
    out.set(levels.subarray(from, from + width * 3), y * width * 3);
  }
  return { levels: out, w: width, h: height };
}

function prepared(picture, fit, W, H, box) {
  if (box) {
    const [x, y, width, height] = box;
    const [left, top] = [Math.max(0, x), Math.max(0, y)];
    picture = cut(picture, left, top, Math.min(picture.w, x + width) - left, Math.min(picture.h, y + height) - top);
  }
  const { w, h } = picture;
  const wide = w * H >= h * W;
  if (fit === "squash") return resample(picture, W, H);
  if (fit === "crop" && wide) {
    const k = rounded(h * W, H, w);
    return resample(cut(picture, Math.floor((w - k) / 2), 0, k, h), W, H);
  }
  if (fit === "crop") {
    const k = rounded(w * H, W, h);
    return resample(cut(picture, 0, Math.floor((h - k) / 2), w, k), W, H);
  }
  const small = resample(picture, wide ? W : rounded(w * H, h, W), wide ? rounded(h * W, w, H) : H);
  const out = new Uint8Array(W * H * 3);
  const [left, top] = [Math.floor((W - small.w) / 2), Math.floor((H - small.h) / 2)];
  for (let y = 0; y < small.h; y++) {
    out.set(small.levels.subarray(y * small.w * 3, (y + 1) * small.w * 3), ((top + y) * W + left) * 3);
  }
  return { levels: out, w: W, h: H };
}

// The same levels as in Python: Lehmer's generator, whose products stay below 2^53.
function noise(count, seed) {
  let state = seed;
  return Uint8Array.from({ length: count }, () => (state = (state * 48271) % 2147483647) >> 8);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { width, height, fit, size, box, seed } = JSON.parse(line);
  const picture = { levels: noise(width * height * 3, seed), w: width, h: height };
  const { levels } = prepared(picture, fit, size[1], size[0], box);
  console.log(createHash("sha256").update(levels).digest("hex"));
}
