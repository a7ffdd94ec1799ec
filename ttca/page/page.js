// The page itself: one photo, one class, one file. Nothing here connects to anything.
// The most pixels of a photo, as in Python.
const MOST_PIXELS = 2 ** 26;
// A JPEG file of 16 × 8 pixels that asks to be turned by a quarter.
const TURNED =
  "/9j/4AAQSkZJRgABAQAAAQABAAD/4QAiRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAD/2wBDAFA3PEY8MlBGQUZaVVBf" +
  "eMiCeG5uePWvuZHI////////////////////////////////////////////////////wAALCAAIABABAREA/8QAFAABAAAAAAAA" +
  "AAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AD//Z";
const CORNERS = { nw: [0, 0], ne: [1, 0], sw: [0, 1], se: [1, 1] };
// The smallest side of the frame, in pixels of the photo.
const LEAST = 8;

const TABLE = JSON.parse(document.getElementById("strings").textContent);
const byId = (id) => document.getElementById(id);
const the = { set: null, signature: null, photo: null, box: null, before: null, after: null, decode: null, checked: false };
// What the page says in which language; kept as it was said, so that it can be said again in the other one.
let language = "en";
const said = new Map();

// -- words --------------------------------------------------------------------------------------------------------

function text(key, values = {}) {
  return TABLE[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function share(value) {
  return new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 }).format(value);
}

function whole(value) {
  return new Intl.NumberFormat(language).format(value);
}

// A moment without a zone is in UTC, as in Python.
function moment(iso) {
  const whole = iso.replace(" ", "T");
  return new Date(/(Z|[+-]\d\d:?\d\d)$/.test(whole) || !whole.includes("T") ? whole : `${whole}Z`);
}

function day(iso) {
  const known = moment(iso);
  if (Number.isNaN(known.getTime())) return iso;
  return new Intl.DateTimeFormat(language, { dateStyle: "long", timeZone: "UTC" }).format(known);
}

// Shows words in an element, now and after the language has changed; null shows nothing.
function say(id, words) {
  said.set(id, words);
  byId(id).textContent = words === null ? "" : words();
}

function speak(wanted) {
  language = wanted;
  document.documentElement.lang = wanted;
  const values = the.set ? about() : { service: "", subgroup: "" };
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = text(element.dataset.t, values);
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text(element.dataset.label, values));
  }
  for (const button of byId("languages").children) button.setAttribute("aria-pressed", String(button.lang === wanted));
  if (the.set) {
    document.title = text("title", values);
    tellFacts();
    byId("class").options[0].textContent = text("class.none");
    slide();
  }
  if (the.photo) byId("choose").textContent = text("photo.another");
  for (const [id, words] of said) byId(id).textContent = words === null ? "" : words();
}

function offerLanguages() {
  for (const name of Object.keys(TABLE)) {
    const button = document.createElement("button");
    button.type = "button";
    button.lang = name;
    button.textContent = TABLE[name].language;
    button.addEventListener("click", () => speak(name));
    byId("languages").append(button);
  }
  const asked = [location.hash.slice(1), ...navigator.languages].map((tag) => tag.slice(0, 2).toLowerCase());
  return asked.find((tag) => Object.hasOwn(TABLE, tag)) ?? "en";
}

// -- what the file says ---------------------------------------------------------------------------------------------

function about() {
  return { service: the.set.service || text("unnamed"), subgroup: the.set.subgroup };
}

// A date that this browser cannot read is over.
function expired() {
  return the.set.expires !== null && !(Date.now() <= moment(the.set.expires).getTime());
}

// The test of this file's own ε, null where none passed.
function passedTest() {
  const certificate = the.set.evidence.certificate;
  return certificate?.tests.find((test) => test.epsilon === the.set.epsilon && test.passed) ?? null;
}

// Right answers, and all; what nobody could read is no right one.
function counted(answers) {
  return { right: whole([...answers].filter((one) => one === "1").length), asked: whole(answers.length) };
}

function aim({ goal, within, accuracy_ratio }) {
  if (typeof within === "number") return ["within", share(within)];
  if (typeof accuracy_ratio === "number") return ["accuracy_ratio", new Intl.NumberFormat(language).format(accuracy_ratio)];
  return typeof goal === "number" ? ["rate", share(goal)] : [goal, ""];
}

function tellProof() {
  const test = passedTest();
  if (!test) return [text("proof.none"), ""];
  const { terms, lower, baseline } = the.set.evidence.certificate;
  const [kind, value] = aim(terms);
  const numbers = [];
  // The bound speaks of the smallest ε that passed, which is this file's where it was handed out.
  if (the.set.evidence.certificate.epsilon === test.epsilon) {
    const [low, sure] = [share(Math.floor(lower.value * 1000) / 1000), share(lower.confidence)];
    numbers.push(text("proof.numbers", { ...counted(test.answers), lower: low, confidence: sure }));
  }
  if (baseline) numbers.push(text(kind === "improvement" ? "proof.before" : "proof.reference", counted(baseline)));
  numbers.push(text("proof.asked"));
  return [text(`proof.${kind}`, { ...about(), value }), numbers.join(" ")];
}

// The classes whose change is none, eight at most; "" where that is true of all or of none.
function leftAlone() {
  const { classes, delta } = the.set;
  const names = classes.filter((_, c) => delta[c].every((level) => level === 0));
  if (names.length === classes.length) return "";
  return names.slice(0, 8).join(", ") + (names.length > 8 ? ", …" : "");
}

function tellFacts() {
  const { evidence, expires, epsilon } = the.set;
  const [proof, numbers] = tellProof();
  byId("proof-said").textContent = proof;
  byId("proof-numbers").textContent = numbers;
  const { abuse_rate: abuse, subgroup_after: png, jpeg75_control: jpeg } = evidence;
  const lossy = [png, jpeg].every((rate) => typeof rate === "number") && { png: share(png), jpeg: share(jpeg) };
  const facts = {
    whom: about().subgroup,
    service: about().service,
    day: evidence.verified ? day(evidence.verified) : text("facts.unknown"),
    until: expires === null ? text("facts.forever") : day(expires),
    strength: text("facts.levels", { epsilon }),
    ...(lossy && { jpeg: text("facts.rates", lossy) }),
    misuse: typeof abuse === "number" ? text("facts.abuse", { share: share(abuse) }) : text("facts.unmeasured"),
  };
  byId("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, words]) => {
      const [term, meaning] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = text(`facts.${name}`);
      meaning.textContent = words;
      return [term, meaning];
    }),
  );
  const alone = leftAlone();
  const not = ["true", ...(alone ? ["class"] : []), "lie", "group", "service", expires === null ? "changed" : "later"];
  const values = { ...about(), classes: alone, day: expires === null ? "" : day(expires) };
  list("not", not.map((name) => text(`not.${name}`, values)));
  list("gate-why", doubts().map((name) => text(`gate.${name}`, { day: expires === null ? "" : day(expires) })));
  tellBadges();
}

function list(id, lines) {
  byId(id).replaceChildren(
    ...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })),
  );
}

function tellBadges() {
  const { evidence, expires } = the.set;
  const badges = [];
  // Of a set that nobody signed, nobody vouches for what it says of its test.
  const vouched = the.signature.state !== "none";
  if (!passedTest()) badges.push(["care", text("badge.failed")]);
  else if (vouched && evidence.verified) badges.push(["good", text("badge.certified", { day: day(evidence.verified) })]);
  else if (vouched) badges.push(["good", text("badge.certified.undated")]);
  if (expired()) badges.push(["care", text("badge.expired", { day: day(expires) })]);
  if (the.signature.state === "none") badges.push(["care", text("badge.unsigned")]);
  byId("badges").replaceChildren(
    ...badges.map(([kind, words]) =>
      Object.assign(document.createElement("span"), { className: `badge ${kind}`, textContent: words }),
    ),
  );
}

// What a member must have read before the page works.
function doubts() {
  const found = [];
  if (!passedTest()) found.push("failed");
  if (expired()) found.push("expired");
  if (the.signature.state === "none") found.push("unsigned");
  return found;
}

// Holds the steps back until the member insists on each doubt; again where a page stays open until its set expires.
const accepted = new Set();
function holdBack() {
  const held = doubts().some((name) => !accepted.has(name));
  if (held) tellFacts();
  byId("gate").hidden = !held;
  byId("steps").hidden = held;
  return held;
}

function refusePage(key) {
  the.checked = false;
  for (const id of ["steps", "gate"]) byId(id).hidden = true;
  say("stop-why", () => text(key));
  byId("stop").hidden = false;
}

function comparePasted() {
  const pasted = byId("pasted").value.trim();
  const answer = byId("key-answer");
  const key = the.signature.key;
  const state = !pasted ? null : pasted === key ? "same" : /^ttca-ed25519:[\w-]{43}$/.test(pasted) ? "other" : "malformed";
  say("key-answer", state && (() => text(`key.${state}`)));
  answer.classList.toggle("good", state === "same");
  answer.classList.toggle("bad", state === "other" || state === "malformed");
  if (state === "other") refusePage("key.other");
}

// -- pixels of this browser -----------------------------------------------------------------------------------------

const DECODERS = [
  (blob) => createImageBitmap(blob, { imageOrientation: "from-image" }),
  async (blob) => {
    const image = new Image();
    image.src = URL.createObjectURL(blob);
    try {
      await image.decode();
    } finally {
      URL.revokeObjectURL(image.src);
    }
    return image;
  },
];

// What a decoder made, as a picture of pixels.js: read in parts, since a phone has no canvas for a whole photo.
function pictureOf(source) {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true, colorSpace: "srgb" });
  const rgba = (x, y, width, height) => {
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    context.imageSmoothingEnabled = false;
    // What is transparent is laid on white.
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.drawImage(source, x, y, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  };
  return { w: source.naturalWidth ?? source.width, h: source.naturalHeight ?? source.height, rgba, source };
}

// Whether a PNG file holds exactly these levels, as this browser decodes and reads it.
async function holds(file, levels, w, h, decode) {
  const picture = pictureOf(await decode(new Blob([file], { type: "image/png" })));
  if (picture.w !== w || picture.h !== h) return false;
  const found = resample(picture, [0, 0, w, h], w, h);
  return found.every((level, i) => level === levels[i]);
}

// The decoder that gives known pixels back and turns photos upright: {decode}, or {problem}.
async function checkedDecoder() {
  const [w, h] = [192, 160];
  const levels = new Uint8Array(w * h * 3);
  // Smooth above and noisy below: what protects against recognition leaves plain surfaces alone.
  for (let i = 0, state = 1; i < levels.length; i++) {
    state = (state * 48271) % 2147483647;
    levels[i] = i < levels.length / 2 ? (i / 3 / w + (i % (3 * w)) / 4) & 255 : state >> 8;
  }
  const file = await png(levels, w, h);
  const turned = new Blob([fromBase64(TURNED)], { type: "image/jpeg" });
  let problem = "stop.old";
  for (const decode of DECODERS) {
    try {
      problem = "stop.noise";
      if (!(await holds(file, levels, w, h, decode))) continue;
      problem = "stop.turn";
      const upright = pictureOf(await decode(turned));
      if (upright.w === 8 && upright.h === 16) return { decode };
    } catch {
      problem = "stop.old";
    }
  }
  return { problem };
}

// -- the photo ------------------------------------------------------------------------------------------------------

async function readPhoto(file) {
  const { bytes, way } = withoutTurn(new Uint8Array(await file.arrayBuffer()));
  return turned(pictureOf(await the.decode(way === 1 ? file : new Blob([bytes], { type: file.type }))), way);
}

let opening = 0;
async function openPhoto(file) {
  if (!the.checked || !file) return;
  const turn = ++opening;
  const status = byId("photo-status");
  status.classList.remove("bad");
  const refuse = (key, values) => {
    status.classList.add("bad");
    say("photo-status", () => text(key, { name: file.name, ...values() }));
  };
  say("photo-status", () => text("photo.reading", { name: file.name }));
  let photo;
  try {
    photo = await readPhoto(file);
  } catch {
    if (turn !== opening) return;
    return refuse("photo.unreadable", () => ({}));
  }
  // Another photo was chosen meanwhile.
  if (turn !== opening) return photo.source.close?.();
  const { w, h } = photo;
  const { preparation, w: W, h: H } = the.set;
  if (w * h > MOST_PIXELS) return refuse("photo.large", () => ({ megapixels: whole(Math.ceil(w * h / 1e6)) }));
  if (!preparation && (w !== W || h !== H)) {
    return refuse("photo.exact", () => ({ w: whole(w), h: whole(h), W: whole(W), H: whole(H) }));
  }
  the.photo?.source.close?.();
  the.photo = { ...photo, name: file.name };
  // What was true of the last photo need not be true of this one.
  byId("class").value = "";
  say("photo-status", () => text("photo.open", { name: file.name, w: whole(w), h: whole(h) }));
  document.body.classList.add("loaded");
  byId("choose").textContent = text("photo.another");
  for (const id of ["step-crop", "step-class", "step-save"]) byId(id).hidden = false;
  showWhole();
  reset();
}

function showWhole() {
  const { w, h, source, way } = the.photo;
  const canvas = byId("whole");
  const scale = Math.min(1, 1400 / Math.max(w, h));
  [canvas.width, canvas.height] = [Math.max(1, Math.round(w * scale)), Math.max(1, Math.round(h * scale))];
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  const [right, down] = [canvas.width, canvas.height];
  if ([2, 3, 6, 7].includes(way)) context.transform(-1, 0, 0, 1, right, 0);
  if ([3, 4, 7, 8].includes(way)) context.transform(1, 0, 0, -1, 0, down);
  if (way >= 5) context.transform(0, 1, 1, 0, 0, 0);
  context.drawImage(source, 0, 0, ...(way >= 5 ? [down, right] : [right, down]));
  // A tiny picture is shown as large as the page is wide.
  canvas.style.width = w < 300 ? "min(100%, 24rem)" : "";
  canvas.style.imageRendering = w < 300 ? "pixelated" : "";
}

// -- the frame ------------------------------------------------------------------------------------------------------

// Width over height of the frame, null where any will do.
function ratio() {
  return the.set.preparation?.fit === "crop" ? the.set.w / the.set.h : null;
}

function reset() {
  const { w, h } = the.photo;
  const whole_ = [0, 0, w, h];
  place(the.set.preparation ? keptPart(whole_, the.set.preparation.fit, the.set.w, the.set.h) : whole_);
}

const within = (value, low, high) => Math.min(Math.max(value, low), Math.max(low, high));

// The frame at another place, as near as the photo allows.
function shifted([x, y, w, h], dx, dy) {
  return [within(Math.round(x + dx), 0, the.photo.w - w), within(Math.round(y + dy), 0, the.photo.h - h), w, h];
}

// The frame with one corner at another place; the corner across from it stays.
function stretched([x, y, w, h], corner, dx, dy) {
  const [right, down] = CORNERS[corner];
  const [anchorX, anchorY] = [right ? x : x + w, down ? y : y + h];
  const [roomX, roomY] = [right ? the.photo.w - x : x + w, down ? the.photo.h - y : y + h];
  let width = w + (right ? dx : -dx);
  let height = h + (down ? dy : -dy);
  const shape = ratio();
  if (shape) {
    // Along the diagonal, so that one finger or one arrow key is enough.
    width = within((width + height * shape) / 2, LEAST * Math.max(1, shape), Math.min(roomX, roomY * shape));
    height = width / shape;
  }
  width = Math.round(within(width, Math.min(LEAST, roomX), roomX));
  height = Math.round(within(height, Math.min(LEAST, roomY), roomY));
  return [right ? anchorX : anchorX - width, down ? anchorY : anchorY - height, width, height];
}

function place(box) {
  the.box = box;
  const { w, h } = the.photo;
  const [x, y, width, height] = box;
  const frame = byId("frame").style;
  frame.left = `${(100 * x) / w}%`;
  frame.top = `${(100 * y) / h}%`;
  frame.width = `${(100 * width) / w}%`;
  frame.height = `${(100 * height) / h}%`;
  for (const handle of document.querySelectorAll(".corner")) {
    const [right, down] = CORNERS[handle.dataset.corner];
    handle.style.left = `${(100 * (x + right * width)) / w}%`;
    handle.style.top = `${(100 * (y + down * height)) / h}%`;
    handle.hidden = !the.set.preparation;
  }
  byId("frame").hidden = !the.set.preparation;
  byId("reset").hidden = !the.set.preparation;
  byId("crop-keys").hidden = !the.set.preparation;
  byId("crop-small").hidden = width >= the.set.w && height >= the.set.h;
  say("crop-hint", () => text(the.set.preparation ? "crop.hint" : "crop.fixed"));
  renewSoon();
}

// The photo is prepared when the frame rests: that takes longer than a frame of a drag may.
let waiting = 0;
function renewSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(renew, 120);
}

function renew() {
  clearTimeout(waiting);
  waiting = 0;
  if (!the.photo) return;
  const { preparation, w: W, h: H } = the.set;
  const [left, top, width, height] = the.box;
  const numbers = { left, top, width, height, W, H };
  say("crop-now", () => text("crop.now", Object.fromEntries(Object.entries(numbers).map(([k, v]) => [k, whole(v)]))));
  the.before = prepared(the.photo, preparation ?? { fit: "squash", size: [H, W] }, preparation ? the.box : null);
  say("saved", null);
  change();
}

function dragging(element, move) {
  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    element.setPointerCapture(event.pointerId);
    element.focus({ preventScroll: true });
    event.preventDefault();
    const from = { x: event.clientX, y: event.clientY, box: the.box };
    const scale = the.photo.w / byId("whole").getBoundingClientRect().width;
    const drag = (now) => place(move(from.box, (now.clientX - from.x) * scale, (now.clientY - from.y) * scale));
    const end = () => {
      element.removeEventListener("pointermove", drag);
      element.removeEventListener("pointerup", end);
      element.removeEventListener("pointercancel", end);
    };
    element.addEventListener("pointermove", drag);
    element.addEventListener("pointerup", end);
    element.addEventListener("pointercancel", end);
  });
  element.addEventListener("keydown", (event) => {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (!dx && !dy) return;
    event.preventDefault();
    const step = Math.max(1, Math.round((Math.max(the.photo.w, the.photo.h) * (event.shiftKey ? 5 : 0.5)) / 100));
    // Along the diagonal a corner moves half as far as its key says.
    const far = element.dataset.corner && ratio() ? 2 * step : step;
    place(move(the.box, dx * far, dy * far));
  });
}

// -- before and after -----------------------------------------------------------------------------------------------

function paint(canvas, levels) {
  const { w: W, h: H } = the.set;
  [canvas.width, canvas.height] = [W, H];
  const picture = new ImageData(W, H);
  for (let i = 0, from = 0; i < picture.data.length; i += 4, from += 3) {
    picture.data[i] = levels[from];
    picture.data[i + 1] = levels[from + 1];
    picture.data[i + 2] = levels[from + 2];
    picture.data[i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function change() {
  const chosen = byId("class").value;
  the.after = chosen === "" || !the.before ? null : moved(the.before, the.set.delta[Number(chosen)], the.set.epsilon);
  if (!the.before) return;
  paint(byId("before"), the.before);
  const shown = the.after ?? the.before;
  // The change alone, on gray.
  const alone = byId("stronger").checked ? shown.map((v, i) => within(128 + 10 * (v - the.before[i]), 0, 255)) : shown;
  paint(byId("after"), alone);
  say("saved", null);
}

function slide() {
  const at = Number(byId("slider").value);
  byId("after").style.clipPath = `inset(0 0 0 ${at}%)`;
  byId("line").style.left = `${at}%`;
  byId("slider").setAttribute("aria-valuetext", text("save.value", { share: share((100 - at) / 100) }));
}

async function save() {
  const status = byId("saved");
  const refuse = (key) => {
    status.classList.replace("good", "bad");
    say("saved", () => text(key));
  };
  if (!the.checked || holdBack()) return;
  if (waiting) renew();
  if (!the.after) {
    refuse("save.first");
    byId(the.photo ? "class" : "file").focus();
    return;
  }
  const { w: W, h: H } = the.set;
  const levels = the.after;
  const file = await png(levels, W, H);
  if (!(await holds(file, levels, W, H, the.decode))) return refuse("save.failed");
  const link = document.createElement("a");
  link.download = `${the.photo.name.replace(/\.[^.]*$/, "") || "photo"}-ttca.png`;
  link.href = URL.createObjectURL(new Blob([file], { type: "image/png" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  status.classList.replace("bad", "good");
  say("saved", () => text("save.done", { name: link.download, w: whole(W), h: whole(H) }));
}

// -- beginning ------------------------------------------------------------------------------------------------------

function listen() {
  for (const id of ["file", "camera"]) {
    byId(id).addEventListener("change", (event) => {
      openPhoto(event.target.files[0]);
      // The same photo can be chosen again.
      event.target.value = "";
    });
  }
  const over = (event, is) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", is);
  };
  addEventListener("dragover", (event) => over(event, true));
  addEventListener("dragleave", (event) => over(event, false));
  addEventListener("drop", (event) => {
    over(event, false);
    openPhoto(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => openPhoto(event.clipboardData.files[0]));
  dragging(byId("frame"), shifted);
  for (const handle of document.querySelectorAll(".corner")) {
    dragging(handle, (box, dx, dy) => stretched(box, handle.dataset.corner, dx, dy));
  }
  byId("reset").addEventListener("click", reset);
  byId("class").addEventListener("change", change);
  byId("stronger").addEventListener("change", change);
  byId("slider").addEventListener("input", slide);
  const compare = byId("compare");
  const follow = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const { left, width } = compare.getBoundingClientRect();
    byId("slider").value = String((100 * (event.clientX - left)) / width);
    slide();
  };
  compare.addEventListener("pointerdown", follow);
  compare.addEventListener("pointermove", follow);
  byId("save").addEventListener("click", save);
  byId("pasted").addEventListener("input", comparePasted);
  byId("insist").addEventListener("click", () => {
    for (const name of doubts()) accepted.add(name);
    holdBack();
    byId("file").focus();
  });
  document.addEventListener("visibilitychange", () => the.checked && holdBack());
}

function offerClasses() {
  const choice = byId("class");
  for (const [i, name] of ["", ...the.set.classes].entries()) {
    choice.append(Object.assign(document.createElement("option"), { value: i ? String(i - 1) : "", textContent: name }));
  }
}

async function begin() {
  const wanted = offerLanguages();
  byId("waiting").hidden = true;
  byId("page").hidden = false;
  try {
    const bytes = await unpacked(fromBase64(byId("set").textContent));
    the.signature = await checkedSignature(bytes, byId("signature").textContent);
    the.set = readSet(bytes);
  } catch {
    the.set = null;
  }
  if (!the.set) {
    for (const card of document.querySelectorAll("main > .card:not(.stop), header > :not(.languages)")) card.hidden = true;
    speak(wanted);
    return refusePage("stop.old");
  }
  offerClasses();
  byId("compare").classList.toggle("coarse", the.set.w < 128);
  listen();
  speak(wanted);
  say("key-said", () => text(`key.${the.signature.state}`));
  byId("key").textContent = the.signature.key ?? "";
  byId("key-known").hidden = !["right", "unable"].includes(the.signature.state);
  if (the.signature.state === "wrong") return refusePage("key.wrong");
  const { decode, problem } = await checkedDecoder();
  if (problem) return refusePage(problem);
  the.decode = decode;
  the.checked = true;
  say("checked", () => text("foot.checked"));
  holdBack();
}

// Tests wait for it.
const ready = begin().catch(() => refusePage("stop.old"));
