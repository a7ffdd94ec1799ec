// Bytes: the members' file, its signature, and a PNG file of exact levels. Runs in the page, and in node for tests.
const FILE_FORMAT = "ttca-perturbations-1";
const SIGNATURE_FORMAT = "ttca-signature-1";
const KEY_PREFIX = "ttca-ed25519:";
// The longest block that deflate stores as it is.
const STORED = 65535;

function fromBase64(text) {
  const plain = text.trim().replaceAll("-", "+").replaceAll("_", "/");
  return Uint8Array.from(atob(plain), (letter) => letter.charCodeAt(0));
}

function joined(parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

// -- deflate --------------------------------------------------------------------------------------------------------

async function through(stream, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

// What zlib made, as it was before; by the browser where it can, else by RFC 1950 and 1951 below.
async function unpacked(bytes, own = typeof DecompressionStream === "undefined") {
  return own ? inflated(bytes) : through(new DecompressionStream("deflate"), bytes);
}

function inflated(bytes) {
  let [at, hold, held] = [2, 0, 0];
  let out = new Uint8Array(bytes.length * 4);
  let length = 0;
  const room = (more) => {
    if (length + more <= out.length) return;
    const wider = new Uint8Array(Math.max(2 * out.length, length + more));
    wider.set(out.subarray(0, length));
    out = wider;
  };
  const bits = (count) => {
    while (held < count) {
      if (at >= bytes.length) throw new Error("cut short");
      hold |= bytes[at++] << held;
      held += 8;
    }
    const value = hold & ((1 << count) - 1);
    hold >>>= count;
    held -= count;
    return value;
  };
  // A code by its lengths: how many there are of each, and the symbols in their order.
  const code = (lengths) => {
    const counts = new Uint16Array(16);
    for (const one of lengths) counts[one]++;
    counts[0] = 0;
    const starts = new Uint16Array(17);
    for (let i = 1; i < 16; i++) starts[i + 1] = starts[i] + counts[i];
    const symbols = new Uint16Array(lengths.length);
    lengths.forEach((one, symbol) => {
      if (one) symbols[starts[one]++] = symbol;
    });
    return { counts, symbols };
  };
  const symbol = ({ counts, symbols }) => {
    let [value, first, index] = [0, 0, 0];
    for (let size = 1; size < 16; size++) {
      value |= bits(1);
      if (value - first < counts[size]) return symbols[index + value - first];
      index += counts[size];
      first = (first + counts[size]) << 1;
      value <<= 1;
    }
    throw new Error("no such code");
  };
  const extra = (base, i, every) => {
    const more = i < 2 * every ? 0 : Math.floor(i / every) - 1;
    let start = base;
    for (let k = 0; k < i; k++) start += 1 << (k < 2 * every ? 0 : Math.floor(k / every) - 1);
    return start + bits(more);
  };
  const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
  for (let last = 0; !last; ) {
    last = bits(1);
    const kind = bits(2);
    if (kind === 0) {
      hold = held = 0;
      const size = bytes[at] | (bytes[at + 1] << 8);
      if (at + 4 + size > bytes.length) throw new Error("cut short");
      room(size);
      out.set(bytes.subarray(at + 4, at + 4 + size), length);
      at += 4 + size;
      length += size;
      continue;
    }
    if (kind === 3) throw new Error("no such block");
    let [literals, distances] = [288, 30];
    let lengths = Array.from({ length: 288 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8));
    lengths.push(...Array(30).fill(5));
    if (kind === 2) {
      [literals, distances] = [bits(5) + 257, bits(5) + 1];
      const count = bits(4) + 4;
      const own = Array(19).fill(0);
      for (let i = 0; i < count; i++) own[ORDER[i]] = bits(3);
      const first = code(own);
      lengths = [];
      while (lengths.length < literals + distances) {
        const one = symbol(first);
        if (one < 16) lengths.push(one);
        else if (one === 16) lengths.push(...Array(3 + bits(2)).fill(lengths.at(-1)));
        else lengths.push(...Array(one === 17 ? 3 + bits(3) : 11 + bits(7)).fill(0));
      }
    }
    const [texts, ways] = [code(lengths.slice(0, literals)), code(lengths.slice(literals, literals + distances))];
    for (let one = symbol(texts); one !== 256; one = symbol(texts)) {
      if (one < 256) {
        room(1);
        out[length++] = one;
        continue;
      }
      const size = one === 285 ? 258 : extra(3, one - 257, 4);
      const back = extra(1, symbol(ways), 2);
      if (back > length) throw new Error("nothing there");
      room(size);
      for (let i = 0; i < size; i++, length++) out[length] = out[length - back];
    }
  }
  return out.slice(0, length);
}

// -- the members' file ----------------------------------------------------------------------------------------------

// What a safetensors file of ttca says, and its δ: one Int8Array per class.
function readSet(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const size = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + size)));
  const { format, facts } = header.__metadata__;
  if (format !== FILE_FORMAT || header.delta.dtype !== "I8") throw new Error("another format");
  // Python writes NaN, which JSON has not. It stands outside of strings.
  const plain = facts.replace(/"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b/g, (part) => (part[0] === '"' ? part : "null"));
  const said = JSON.parse(plain);
  const [classes, h, w] = header.delta.shape;
  const [start, stop] = header.delta.data_offsets;
  const all = new Int8Array(bytes.buffer, bytes.byteOffset + 8 + size + start, stop - start);
  if (all.length !== classes * h * w * 3 || said.classes.length !== classes) throw new Error("another shape");
  const delta = said.classes.map((_, c) => all.subarray(c * h * w * 3, (c + 1) * h * w * 3));
  const found = said.preparation ?? null;
  const side = found && [found.size].flat();
  const preparation = found && { fit: found.fit, size: side.length === 2 ? side : [side[0], side[0]] };
  return { ...said, h, w, delta, preparation };
}

// Whether bytes are what was signed: {state, key}, where state is right, wrong, none, or unable in this browser.
async function checkedSignature(bytes, text) {
  if (!text.trim()) return { state: "none", key: null };
  let key = null;
  let parts;
  try {
    const said = JSON.parse(text);
    if (said.format !== SIGNATURE_FORMAT || !said.key.startsWith(KEY_PREFIX)) throw new Error("another format");
    key = said.key;
    parts = [fromBase64(key.slice(KEY_PREFIX.length)), fromBase64(said.signature)];
  } catch {
    return { state: "wrong", key };
  }
  const message = joined([new TextEncoder().encode(`${SIGNATURE_FORMAT} perturbations\n`), bytes]);
  try {
    const used = await crypto.subtle.importKey("raw", parts[0], { name: "Ed25519" }, false, ["verify"]);
    const right = await crypto.subtle.verify({ name: "Ed25519" }, used, parts[1], message);
    return { state: right ? "right" : "wrong", key };
  } catch {
    // Older browsers do not know Ed25519, and none has `subtle` on a page that came without HTTPS.
    return { state: "unable", key };
  }
}

// -- photographs ----------------------------------------------------------------------------------------------------

// A WebP file that asks for nothing, and which of the eight ways it asked to be seen in. Browsers turn JPEG and PNG
// themselves, but not all of them WebP.
function withoutTurn(bytes) {
  const as = { bytes, way: 1 };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const name = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (name(0) !== "RIFF" || name(8) !== "WEBP") return as;
  try {
    let at = 12;
    while (name(at) !== "EXIF") at += 8 + view.getUint32(at + 4, true) + (view.getUint32(at + 4, true) & 1);
    at += name(at + 8) === "Exif" ? 14 : 8;
    const little = name(at).startsWith("II");
    const table = at + view.getUint32(at + 4, little);
    for (let i = 0, entry = table + 2; i < view.getUint16(table, little); i++, entry += 12) {
      const way = view.getUint16(entry + 8, little);
      // The tag of the orientation, one short number.
      if (view.getUint16(entry, little) !== 0x0112 || view.getUint16(entry + 2, little) !== 3) continue;
      if (way < 2 || way > 8) return as;
      const changed = bytes.slice();
      new DataView(changed.buffer).setUint16(entry + 8, 1, little);
      return { bytes: changed, way };
    }
  } catch {
    // No EXIF, or none that can be read: it asks for nothing.
  }
  return as;
}

// -- PNG ------------------------------------------------------------------------------------------------------------

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

function crc32(bytes) {
  let c = 0xffffffff;
  for (const byte of bytes) c = CRC[(c ^ byte) & 0xff] ^ (c >>> 8);
  return ~c >>> 0;
}

function adler32(bytes) {
  let [a, b] = [1, 0];
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return ((b << 16) | a) >>> 0;
}

function word(value) {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

// A zlib stream that stores bytes as they are.
function stored(bytes) {
  const parts = [Uint8Array.of(0x78, 0x01)];
  for (let at = 0; at < bytes.length || at === 0; at += STORED) {
    const part = bytes.subarray(at, at + STORED);
    const size = part.length;
    const last = at + STORED >= bytes.length ? 1 : 0;
    parts.push(Uint8Array.of(last, size, size >>> 8, ~size, ~size >>> 8), part);
  }
  return joined([...parts, word(adler32(bytes))]);
}

function chunk(name, data) {
  const body = joined([new TextEncoder().encode(name), data]);
  return joined([word(data.length), body, word(crc32(body))]);
}

// A PNG file of RGB levels, eight bits each, and nothing else.
async function png(levels, w, h, own = typeof CompressionStream === "undefined") {
  const line = w * 3;
  const raw = new Uint8Array((line + 1) * h);
  for (let row = 0; row < h; row++) {
    // Each level less the one to its left: photographs become smaller.
    const at = row * (line + 1);
    raw[at] = 1;
    for (let i = 0; i < line; i++) raw[at + 1 + i] = levels[row * line + i] - (i < 3 ? 0 : levels[row * line + i - 3]);
  }
  const data = own ? stored(raw) : await through(new CompressionStream("deflate"), raw);
  return joined([
    Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a),
    chunk("IHDR", joined([word(w), word(h), Uint8Array.of(8, 2, 0, 0, 0)])),
    chunk("IDAT", data),
    chunk("IEND", new Uint8Array(0)),
  ]);
}
