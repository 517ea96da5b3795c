// The server receives one image and answers with its pixels and the objects in it. Everything else
// (score threshold, hidden classes, saving) happens here.

import { detect, readSettings } from "./ask.js";
import { paint } from "./paint.js";

const $ = (id) => document.getElementById(id);
let settings = null;
let answer = null; // of the server, for the current image
let fileName = "";
let highlighted = null; // the object under the pointer
let pending = null; // AbortController of the current request
const hidden = new Set(); // class indices

async function start() {
  listen();
  try {
    settings = await readSettings();
  } catch (error) {
    return showStatus(error.message, true);
  }
  const named = settings.named ? "" : " without names";
  $("weights").textContent = `${settings.weights}, ${count(settings.classes.length, "class", "classes")}${named}`;
  $("threshold").min = settings.least_score;
  $("threshold").value = settings.threshold;
}

function listen() {
  for (const id of ["choose", "again"]) $(id).addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    process([...$("file").files]);
    $("file").value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) process(files);
    else showStatus("There is no image in the clipboard.", true);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("stage").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("stage").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("stage").classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (files.length) process(files);
    else showStatus("This is not a file. Save the image first, then drop the file.", true);
  });
  $("threshold").addEventListener("input", show);
  for (const id of ["show-masks", "show-boxes", "show-names"]) $(id).addEventListener("change", draw);
  $("save-picture").addEventListener("click", savePicture);
  $("save-json").addEventListener("click", saveJson);
  new ResizeObserver(draw).observe($("stage"));
}

function showStatus(text, trouble = false) {
  $("status").textContent = text;
  $("status").classList.toggle("trouble", trouble);
}

const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

// --------------------------------------------------------------------------------- detecting

async function process(files) {
  if (!settings) await started;
  if (!settings) return; // start() has shown the reason
  const file = files[0];
  if (file.size > settings.max_bytes) {
    const [size, most] = [file.size, settings.max_bytes].map((x) => `${(x / 1e6).toFixed(1)} MB`);
    return showStatus(`${file.name} has ${size}; the limit is ${most}.`, true);
  }
  if (pending) pending.abort();
  const request = (pending = new AbortController());
  const begin = performance.now();
  const tick = () => showStatus(`Processing ${file.name} … ${Math.floor((performance.now() - begin) / 1000)} s`);
  tick();
  const timer = setInterval(tick, 1000);
  try {
    const found = await detect(file, request.signal);
    await showAnswer(found, file.name);
    if (files.length > 1) showStatus(`${$("status").textContent} Only the first of ${files.length} files was used.`);
  } catch (error) {
    if (error.name !== "AbortError") showStatus(error.message, true);
  } finally {
    clearInterval(timer);
    if (pending === request) pending = null;
  }
}

async function showAnswer(body, name) {
  const picture = new Image();
  picture.src = body.picture;
  await picture.decode();
  answer = { ...body, picture };
  fileName = name;
  highlighted = null;
  hidden.clear();
  const wasAtWelcome = $("welcome").contains(document.activeElement);
  $("welcome").hidden = true;
  for (const id of ["canvas", "panel"]) $(id).hidden = false;
  $("stage").classList.add("full");
  document.querySelector("main").classList.add("found");
  if (wasAtWelcome) $("again").focus({ preventScroll: true }); // the focused button is gone
  show();
}

// ----------------------------------------------------------------------------------- showing

const threshold = () => Number($("threshold").value);
const isAbove = (object) => object.score >= threshold();
const isShown = (object) => isAbove(object) && !hidden.has(object.class);

function show() {
  $("score").textContent = threshold().toFixed(2);
  if (!answer) return;
  listClasses();
  summarize();
}

function summarize() {
  listObjects();
  draw();
  const shown = answer.objects.filter(isShown);
  const least = answer.objects.length && !shown.length ? " Lower the score to see more." : "";
  const note = answer.note ? ` ${answer.note.trim()}.` : "";
  const found = `${count(shown.length, "object", "objects")} in ${fileName}`;
  showStatus(`${found}, ${answer.width} × ${answer.height}, in ${answer.seconds.toFixed(2)} s.${least}${note}`);
  const names = shown.map((object) => settings.classes[object.class].name);
  $("canvas").setAttribute("aria-label", `${fileName}: ${names.join(", ") || "nothing found"}`);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function swatch(index) {
  const made = element("span", { className: "swatch" });
  made.style.backgroundColor = settings.classes[index].colour;
  return made;
}

function listClasses() {
  const numbers = new Map();
  for (const object of answer.objects.filter(isAbove)) {
    numbers.set(object.class, (numbers.get(object.class) || 0) + 1);
  }
  const rows = [...numbers].sort((a, b) => b[1] - a[1]).map(([index, number]) => {
    const box = element("input", { type: "checkbox", checked: !hidden.has(index) });
    box.addEventListener("change", () => {
      box.checked ? hidden.delete(index) : hidden.add(index);
      summarize();
    });
    const label = element("label", {}, box, swatch(index), `${settings.classes[index].name} (${number})`);
    return element("li", {}, label);
  });
  $("legend").replaceChildren(...(rows.length ? rows : [element("li", { className: "quiet", textContent: "none" })]));
}

function listObjects() {
  const rows = answer.objects.filter(isShown).sort((a, b) => b.score - a.score).map((object) => {
    const button = element(
      "button", { type: "button" }, swatch(object.class),
      element("span", { className: "name", textContent: settings.classes[object.class].name }),
      element("span", { className: "score", textContent: object.score.toFixed(2) }),
    );
    button.setAttribute("aria-pressed", "false");
    const mark = (value) => () => {
      highlighted = value;
      draw();
    };
    for (const kind of ["mouseenter", "focus"]) button.addEventListener(kind, mark(object));
    for (const kind of ["mouseleave", "blur"]) button.addEventListener(kind, mark(null));
    return element("li", {}, button);
  });
  $("found").replaceChildren(...rows);
  $("found-title").textContent = rows.length ? `Found (${rows.length})` : "Nothing with this score";
}

// ----------------------------------------------------------------------------------- drawing

function draw() {
  if (!answer) return;
  const canvas = $("canvas");
  const room = $("stage").clientWidth - 16;
  const scale = Math.min(room / answer.width, (innerHeight * 0.78) / answer.height, 3);
  const dense = devicePixelRatio || 1;
  canvas.style.width = `${Math.round(answer.width * scale)}px`;
  canvas.style.height = `${Math.round(answer.height * scale)}px`;
  canvas.width = Math.round(answer.width * scale * dense);
  canvas.height = Math.round(answer.height * scale * dense);
  paint(canvas.getContext("2d"), scene(), scale * dense, 13 * dense);
}

function scene() {
  const objects = answer.objects.filter(isShown);
  return {
    ...answer,
    classes: settings.classes,
    objects: objects.includes(highlighted) ? [highlighted] : objects,
    masks: $("show-masks").checked,
    boxes: $("show-boxes").checked,
    names: $("show-names").checked,
  };
}

// ------------------------------------------------------------------------------------ saving

function savePicture() {
  const canvas = element("canvas", { width: answer.width, height: answer.height });
  const letters = Math.max(10, Math.round(Math.min(answer.width, answer.height) / 32));
  paint(canvas.getContext("2d"), scene(), 1, letters);
  canvas.toBlob((blob) => save(blob, "png"), "image/png");
}

// COCO json of the visible objects.
function saveJson() {
  const { annotations, ...coco } = answer.coco;
  coco.images = coco.images.map((image) => ({ ...image, file_name: fileName }));
  coco.annotations = annotations.filter((_, i) => isShown(answer.objects[i]));
  save(new Blob([JSON.stringify(coco)], { type: "application/json" }), "json");
}

function save(blob, suffix) {
  const url = URL.createObjectURL(blob);
  const link = element("a", { href: url, download: `${fileName.replace(/\.[^.]*$/, "")}_found.${suffix}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

const started = start();
