// Levels: the arithmetic of docs/preparation.md, and δ, in whole numbers that a JavaScript number holds exactly.
// The page runs this file, and tests/preparation.mjs runs the same one. A picture is {w, h, rgba}: rgba(x, y, w, h)
// returns the levels of a part, four bytes a pixel and opaque, row by row. What comes out has three bytes a pixel.
"use strict";

const LANCZOS = Float64Array.from({ length: 385 }, (_, t) => {
  const x = (Math.PI * t) / 128;
  return t ? Math.round((16384 * 3 * Math.sin(x) * Math.sin(x / 3)) / (x * x)) : 16384;
});

// So many pixels are read from a picture at once: a phone has no room for all of them twice.
const AT_ONCE = 1 << 20;

const rounded = (a, b, most) => Math.min(most, Math.max(1, Math.floor((2 * a + b) / (2 * b))));

// The coefficients of each target, from the sample `low` on; those of all other samples are 0.
function coefficients(n, wanted, k, samples) {
  const u = 2 * Math.max(n, wanted * k);
  const unit = 2 * wanted * k;
  return Array.from({ length: wanted }, (_, j) => {
    const middle = (2 * j + 1) * n;
    const low = Math.max(0, Math.floor((middle - 3 * u) / unit) - 1);
    const high = Math.min(samples, Math.ceil((middle + 3 * u) / unit) + 2);
    const weights = [];
    for (let i = low; i < high; i++) {
      const a = Math.abs((2 * i + 1) * wanted * k - middle);
      weights.push(LANCZOS[Math.floor((256 * a + u) / (2 * u))] ?? 0);
    }
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const q = weights.map((weight) => Math.floor((32768 * weight + total) / (2 * total)));
    q[q.indexOf(Math.max(...q))] += 16384 - q.reduce((sum, share) => sum + share, 0);
    return { low, q: Float64Array.from(q) };
  });
}

// Adds the red, green and blue of each block of k pixels of one row to the sums of its blocks.
function addRow(pixels, from, width, k, sums) {
  const right = from + width;
  for (let i = from, at = 0; i < right; at += 3) {
    const end = Math.min(right, i + k);
    while (i < end) {
      // Red and blue share one number: 256 levels of 255 fit into 16 bits.
      const stop = Math.min(end, i + 256);
      let two = 0;
      let green = 0;
      // Four at a time, for speed.
      for (const four = stop - 3; i < four; i += 4) {
        const a = pixels[i];
        const b = pixels[i + 1];
        const c = pixels[i + 2];
        const d = pixels[i + 3];
        two = (two + (a & 0xff00ff) + (b & 0xff00ff) + (c & 0xff00ff) + (d & 0xff00ff)) | 0;
        green = (green + (a & 0xff00) + (b & 0xff00) + (c & 0xff00) + (d & 0xff00)) | 0;
      }
      for (; i < stop; i++) {
        const pixel = pixels[i];
        two = (two + (pixel & 0xff00ff)) | 0;
        green = (green + (pixel & 0xff00)) | 0;
      }
      sums[at] += two & 0xffff;
      sums[at + 1] += green >>> 8;
      sums[at + 2] += two >>> 16;
    }
  }
}

// The mean of each block of kx × ky pixels of a box, in 1/256 of a level.
function blockMeans(picture, [x, y, w, h], kx, ky) {
  const mx = Math.ceil(w / kx);
  const means = new Float64Array(mx * Math.ceil(h / ky) * 3);
  const sums = new Float64Array(mx * 3);
  const together = Math.max(1, Math.floor(AT_ONCE / w));
  let to = 0;
  for (let top = 0; top < h; top += together) {
    const rows = Math.min(together, h - top);
    const levels = picture.rgba(x, y + top, w, rows);
    const pixels = new Int32Array(levels.buffer, levels.byteOffset, w * rows);
    for (let row = 0; row < rows; row++) {
      addRow(pixels, row * w, w, kx, sums);
      const done = top + row + 1;
      if (done % ky && done < h) continue;
      const high = done % ky || ky;
      for (let block = 0; block < mx; block++) {
        const m = high * Math.min(kx, w - block * kx);
        for (let c = 0; c < 3; c++) means[to++] = Math.floor((512 * sums[block * 3 + c] + m) / (2 * m));
      }
      sums.fill(0);
    }
  }
  return means;
}

function resample(picture, box, W, H) {
  const [x, y, w, h] = box;
  const out = new Uint8Array(W * H * 3);
  if (w === W && h === H) {
    const levels = picture.rgba(x, y, w, h);
    for (let i = 0, to = 0; to < out.length; i += 4, to += 3) {
      out[to] = levels[i];
      out[to + 1] = levels[i + 1];
      out[to + 2] = levels[i + 2];
    }
    return out;
  }
  const kx = Math.max(1, Math.floor(w / (2 * W)));
  const ky = Math.max(1, Math.floor(h / (2 * H)));
  const [mx, my] = [Math.ceil(w / kx), Math.ceil(h / ky)];
  const means = blockMeans(picture, box, kx, ky);
  const across = new Float64Array(my * W * 3);
  coefficients(w, W, kx, mx).forEach(({ low, q }, j) => {
    for (let row = 0; row < my; row++) {
      let red = 8192;
      let green = 8192;
      let blue = 8192;
      for (let i = 0, at = (row * mx + low) * 3; i < q.length; i++, at += 3) {
        red += q[i] * means[at];
        green += q[i] * means[at + 1];
        blue += q[i] * means[at + 2];
      }
      const to = (row * W + j) * 3;
      across[to] = Math.floor(red / 16384);
      across[to + 1] = Math.floor(green / 16384);
      across[to + 2] = Math.floor(blue / 16384);
    }
  });
  const line = W * 3;
  const sums = new Float64Array(line);
  coefficients(h, H, ky, my).forEach(({ low, q }, j) => {
    sums.fill(2097152);
    q.forEach((share, i) => {
      const from = (low + i) * line;
      for (let column = 0; column < line; column++) sums[column] += share * across[from + column];
    });
    for (let column = 0; column < line; column++) {
      out[j * line + column] = Math.min(255, Math.max(0, Math.floor(sums[column] / 4194304)));
    }
  });
  return out;
}

// The picture as EXIF asks to see it: transposed for 5 to 8, then flipped.
function turned(picture, way) {
  if (way === 1) return { ...picture, way };
  const across = way >= 5;
  const [w, h] = across ? [picture.h, picture.w] : [picture.w, picture.h];
  const [flipX, flipY] = [[2, 3, 6, 7].includes(way), [3, 4, 7, 8].includes(way)];
  const rgba = (x, y, width, height) => {
    const left = flipX ? w - x - width : x;
    const top = flipY ? h - y - height : y;
    const levels = across ? picture.rgba(top, left, height, width) : picture.rgba(left, top, width, height);
    const from = new Int32Array(levels.buffer, levels.byteOffset, width * height);
    const out = new Int32Array(width * height);
    for (let row = 0, to = 0; row < height; row++) {
      const fromRow = flipY ? height - 1 - row : row;
      for (let column = 0; column < width; column++) {
        const fromColumn = flipX ? width - 1 - column : column;
        out[to++] = from[across ? fromColumn * height + fromRow : fromRow * width + fromColumn];
      }
    }
    return new Uint8Array(out.buffer);
  };
  return { ...picture, w, h, rgba, way };
}

// The part of w × h pixels that becomes W × H: all of it, or what `crop` keeps.
function keptPart([x, y, w, h], fit, W, H) {
  if (fit !== "crop") return [x, y, w, h];
  if (w * H >= h * W) {
    const k = rounded(h * W, H, w);
    return [x + Math.floor((w - k) / 2), y, k, h];
  }
  const k = rounded(w * H, W, h);
  return [x, y + Math.floor((h - k) / 2), w, k];
}

// A picture as the platform gets it; `box` is the part that counts, null for all of it.
function prepared(picture, { fit, size: [H, W] }, box) {
  const [x, y, width, height] = box ?? [0, 0, picture.w, picture.h];
  const [left, top] = [Math.max(0, x), Math.max(0, y)];
  const [w, h] = [Math.min(picture.w, x + width) - left, Math.min(picture.h, y + height) - top];
  if (fit !== "pad") return resample(picture, keptPart([left, top, w, h], fit, W, H), W, H);
  const wide = w * H >= h * W;
  const [sw, sh] = wide ? [W, rounded(h * W, w, H)] : [rounded(w * H, h, W), H];
  const small = resample(picture, [left, top, w, h], sw, sh);
  const out = new Uint8Array(W * H * 3);
  const [right, down] = [Math.floor((W - sw) / 2), Math.floor((H - sh) / 2)];
  for (let row = 0; row < sh; row++) {
    out.set(small.subarray(row * sw * 3, (row + 1) * sw * 3), ((down + row) * W + right) * 3);
  }
  return out;
}

// What is to be sent: each level moved by δ, which moves none by more than ε, within 0..255.
function moved(levels, delta, epsilon) {
  const out = new Uint8Array(levels.length);
  for (let i = 0; i < out.length; i++) {
    const by = Math.min(epsilon, Math.max(-epsilon, delta[i]));
    out[i] = Math.min(255, Math.max(0, levels[i] + by));
  }
  return out;
}
