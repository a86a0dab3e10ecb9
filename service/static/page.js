"use strict";

const K = 20;
const ROOT = document.documentElement.dataset.root; // the path under which a proxy shows the page

const byId = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
let latest = 0; // number of the newest query; answers to older ones are dropped
let pictureUrl = null;

async function ask(body, contentType, picture) {
  const turn = ++latest;
  byId("problem").hidden = true;
  busy(true);
  try {
    const headers = contentType ? { "Content-Type": contentType } : {};
    const response = await fetch(`${ROOT}/v1/compare?k=${K}`, { method: "POST", headers, body });
    const isJson = /json/.test(response.headers.get("Content-Type"));
    const answer = isJson ? await response.json() : { detail: withoutJson(response.status) };
    if (turn !== latest) return;
    if (response.ok && isJson) showAnswer(answer, picture);
    else showProblem(answer.detail);
  } catch {
    if (turn === latest) showProblem("the service cannot be reached");
  } finally {
    if (turn === latest) busy(false);
  }
}

// What an answer without JSON means: it comes from a proxy before the service.
function withoutJson(status) {
  if (status === 413) return "the upload is too large";
  if (status >= 502 && status <= 504) return "the service is not available; try again in a moment";
  return `a proxy answered in place of the service, with status ${status}`;
}

function askByFile(file) {
  if (pictureUrl) URL.revokeObjectURL(pictureUrl);
  pictureUrl = URL.createObjectURL(file);
  history.pushState(null, "", location.pathname);
  return ask(file, "application/octet-stream", pictureUrl);
}

function askById(id) {
  history.pushState(null, "", `?id=${id}`);
  return showById(id);
}

function showById(id) {
  return ask(JSON.stringify({ id }), "application/json", `${ROOT}/v1/images/${id}/thumbnail`);
}

function showProblem(detail) {
  byId("problem").textContent = `No answer: ${detail}`;
  clear(); // so that an older answer is not taken for this query's
  byId("problem").hidden = false;
}

function clear() {
  latest++; // answers that are still on their way are dropped
  byId("problem").hidden = true;
  byId("query").hidden = true;
  byId("columns").replaceChildren();
  busy(false);
}

function busy(whether) {
  document.body.classList.toggle("busy", whether);
  byId("columns").setAttribute("aria-busy", String(whether));
}

function showAnswer(answer, picture) {
  byId("query").hidden = false;
  byId("query-picture").hidden = false;
  byId("query-picture").src = picture;
  drawCode(answer.code);
  const found = answer.methods.map((method) => new Set(method.hits.map((hit) => hit.id)));
  const compared = found.length > 1; // a gallery without pixels is searched by code only
  const common = new Set(
    [...found[0]].filter((id) => compared && found.every((ids) => ids.has(id))),
  );
  const most = Math.max(...found.map((ids) => ids.size));
  byId("agreement").textContent =
    (compared ? agreement(common.size, most) : "") + "Click any picture to search from it.";
  byId("columns").replaceChildren(...answer.methods.map((method) => column(method, common)));
  byId("agreement").focus({ preventScroll: true }); // the picture that had the focus is gone
}

function agreement(common, most) {
  return `They agree on ${common} of ${most}${common ? ", which are outlined" : ""}. `;
}

function column(method, common) {
  const section = byId("column").content.cloneNode(true);
  section.querySelector("h2").textContent = method.title;
  section.querySelector(".cost").textContent =
    `${number.format(method.image_bytes)} bytes an image, ` +
    `${method.latency_ms.toFixed(1)} ms; distance in ${unit(method)}`;
  section.querySelector("ol").replaceChildren(
    ...method.hits.map((hit) => hitItem(hit, method, common.has(hit.id))),
  );
  const far = method.hits.findIndex((hit) => hit.closeness === "far");
  if (far >= 0) section.querySelectorAll("li")[far].before(byId("end").content.cloneNode(true));
  return section;
}

// A uri as people write paths; names that are not UTF-8 stay percent-encoded.
function plain(uri) {
  if (uri.startsWith("+/")) return `bytes with SHA-256 ${uri.slice(2)}`; // added without a file
  try {
    return decodeURIComponent(uri);
  } catch {
    return uri;
  }
}

function hitItem(hit, method, inBoth) {
  const item = byId("hit").content.cloneNode(true);
  const button = item.querySelector("button");
  button.dataset.id = hit.id;
  button.title = plain(hit.uri) + (hit.missing ? " (file gone)" : "");
  button.classList.toggle("both", inBoth);
  item.querySelector("img").src = hit.thumbnail;
  item.querySelector("img").alt = hit.label ? "" : `image ${hit.id}`; // its label is shown below
  item.querySelector(".distance").textContent = number.format(distance(hit, method));
  if (hit.closeness) item.querySelector(".distance").after(" ", closeness(hit.closeness));
  item.querySelector(".gone").hidden = !hit.missing;
  item.querySelector(".label").textContent = hit.label ?? "";
  return item;
}

// The word with its explanation.
function closeness(word) {
  return byId("closeness").content.querySelector(`[data-word="${word}"]`).cloneNode(true);
}

// Squared distances are whole numbers; the page shows their roots.
const SQUARED = "squared ";

function distance(hit, method) {
  return method.unit.startsWith(SQUARED) ? Math.round(Math.sqrt(hit.distance)) : hit.distance;
}

function unit(method) {
  return method.unit.startsWith(SQUARED)
    ? `${method.unit.slice(SQUARED.length)} (Euclidean)`
    : method.unit;
}

// 32 bytes as 16 × 16 squares, the highest bit of each byte first.
function drawCode(hex) {
  const context = byId("query-code").getContext("2d");
  for (let bit = 0; bit < 256; bit++) {
    const byte = parseInt(hex.slice(2 * (bit >> 3), 2 * (bit >> 3) + 2), 16);
    context.fillStyle = byte & (128 >> (bit & 7)) ? "#111" : "#eee";
    context.fillRect(bit % 16, bit >> 4, 1, 1);
  }
}

// The service reads formats that a browser cannot show, such as TIFF.
byId("query-picture").addEventListener("error", (event) => {
  event.target.hidden = true;
});

byId("file").addEventListener("change", (event) => {
  if (event.target.files.length) askByFile(event.target.files[0]);
  event.target.value = ""; // the same file may be chosen again
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-id]");
  if (!button) return;
  askById(Number(button.dataset.id));
  window.scrollTo({ top: 0, behavior: "smooth" });
});

const drop = byId("drop");
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) askByFile(event.dataTransfer.files[0]);
  else showProblem("only a file can be dropped; save the picture first");
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) askByFile(event.clipboardData.files[0]);
});

// The address names a query by id, so that it can be shared and Back works.
function showAddress() {
  const id = new URLSearchParams(location.search).get("id");
  if (id && /^\d{1,15}$/.test(id)) showById(Number(id));
  else clear();
}

window.addEventListener("popstate", showAddress);
showAddress();
