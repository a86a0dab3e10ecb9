/** A picture large, beside the query or another one. */

import { copyButton } from "./clipboard.js";
import { boxOf } from "./crop.js";
import { byId, element } from "./dom.js";
import { HAS_PICTURES } from "./facts.js";
import { layOver, shown as current } from "./navigation.js";
import { toolsInWords } from "./picks.js";
import { ask, reconstruction, ROOT, thumbnail } from "./service.js";
import { describeBits } from "./understand.js";
import { distanceIn, nameOf, number, pathOf, size } from "./words.js";
import { listenOn, panned, STEP, WHOLE, zoomed } from "./zoom.js";

/** @typedef {import("./tiles.js").Hit} Hit */
/** @typedef {import("./groups.js").File} File */
/** @typedef {import("./zoom.js").Zoom} Zoom */

const LARGEST_BYTES = 25_000_000; // of an original that is shown
const PANS = 0.1; // of the frame, by an arrow key
const KEYS = "Keys: ← and → turn to other pictures, + and − zoom, Shift with arrows moves, 0 shows the whole picture, Esc closes.";

/** @type {Record<string, string>} */
const MEANINGS = JSON.parse(document.documentElement.dataset.meanings ?? "{}");

/**
 * @typedef {object} Pictures
 * @property {Hit[]} hits
 * @property {Hit} hit of them, that is shown first
 * @property {string} unit of their distances
 * @property {HTMLElement} opener the hit's own among their list
 * @property {() => boolean} [mayGrow] whether more hits come
 * @property {File | null} [kept] stands beside the others in place of the query; null: nothing does
 */

/**
 * @param {import("./navigation.js").Entry} entry
 * @param {Pictures} pictures
 * @returns {() => void} to be called when more have come
 */
export function openLightbox(entry, { hits, hit, unit, opener, mayGrow = () => false, kept }) {
  const isSearch = kept === undefined;
  const list = opener.closest(".tiles") ?? byId("results");
  const under = current();
  let place = hits.indexOf(hit);
  /** @type {Readonly<Zoom>} */
  let zoom = WHOLE;
  let controller = new AbortController();

  const title = element("h2", { id: "lightbox-name", "aria-live": "polite" });
  const count = element("p", { className: "count", "aria-live": "polite" });
  const previous = button("‹", "Previous picture", "←", () => turn(-1));
  const next = button("›", "Next picture", "→", () => turn(1));
  next.className = "next";
  const less = button("−", "Zoom out", "-", () => change((now) => zoomed(now, 1 / STEP)));
  const more = button("+", "Zoom in", "+", () => change((now) => zoomed(now, STEP)));
  const close = button("✕", "Close", "Esc", () => leave());
  const asked = frame(kept ? `Keep: ${sizes(kept)}` : "Query");
  const found = frame(isSearch ? "Result" : "");
  const facts = element("div", { className: "about" });
  const bits = element("section", { className: "differences" });
  const frames = element("div", { className: "frames" }, asked.figure, found.figure);
  const dialog = element(
    "dialog",
    { className: "lightbox", "aria-labelledby": title.id },
    element("div", { className: "bar" }, previous, count, next, title, less, more, close),
    element(
      "div",
      { className: "sheet" },
      frames,
      facts,
      element("p", { className: "keys" }, KEYS),
      element("details", { className: "which" }, element("summary", {}, "Which bits differ"), bits),
    ),
  );
  document.body.append(dialog);
  addEventListener("keydown", pressed); // a click on a text takes the focus out of the dialog
  let isBeside = false; // the pointer went down there
  dialog.addEventListener("pointerdown", (event) => (isBeside = beside(event)));
  dialog.addEventListener("click", (event) => isBeside && beside(event) && leave());
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault(); // it closes once its entry of the history is left
    leave();
  });
  dialog.addEventListener("close", () => {
    leave(); // where the browser did not wait
    removeEventListener("keydown", pressed);
    controller.abort();
    dialog.remove();
    // The focus returns to what was shown last.
    if (current() === under) (tileOf(hits[place]) ?? opener).focus({ preventScroll: true });
  });
  showQuery();
  show();
  dialog.showModal();
  const leave = layOver(() => dialog.close());
  next.focus();
  return sayPlace;

  /** @param {MouseEvent} event */
  function beside({ target, clientX, clientY }) {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    const isWithin = left <= clientX && clientX <= right && top <= clientY && clientY <= bottom;
    return target === dialog && !isWithin;
  }

  /** @param {string} caption */
  function frame(caption) {
    const content = element("div", { className: "content" });
    const window = element("div", { className: "window" }, content);
    listenOn(window, change, (by) => zoom.scale === 1 && turn(by));
    const figcaption = element("figcaption", {}, caption);
    return { content, figcaption, figure: element("figure", {}, window, figcaption) };
  }

  /** @param {(zoom: Readonly<Zoom>) => Zoom} how */
  function change(how) {
    zoom = how(zoom);
    for (const { content } of [asked, found]) {
      content.style.transform = `translate(${zoom.x * 100}%, ${zoom.y * 100}%) scale(${zoom.scale})`;
    }
    less.ariaDisabled = String(zoom.scale === 1);
    frames.classList.toggle("zoomed", zoom.scale > 1);
  }

  /** @param {KeyboardEvent} event */
  function pressed(event) {
    const { key, shiftKey } = event;
    const arrow = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (arrow && shiftKey) change((now) => panned(now, arrow[0] * PANS, arrow[1] * PANS));
    else if (arrow?.[0]) turn(-arrow[0]);
    else if (key === "+" || key === "=") change((now) => zoomed(now, STEP));
    else if (key === "-") change((now) => zoomed(now, 1 / STEP));
    else if (key === "0") change(() => WHOLE);
    else {
      const tool = dialog.querySelector(`[aria-keyshortcuts="${CSS.escape(key.toUpperCase())}"]`);
      if (!(tool instanceof HTMLElement)) return;
      tool.click();
    }
    event.preventDefault();
  }

  /** @param {number} by */
  function turn(by) {
    if (!hits[place + by]) return sayPlace();
    place += by;
    show();
  }

  function sayPlace() {
    const grows = mayGrow(); // as the results are scrolled, which `show` does
    count.textContent = `${number(place + 1)} of ${number(hits.length)}${grows ? "+" : ""}`;
    previous.ariaDisabled = String(place === 0); // it keeps the focus, and so the keys
    next.ariaDisabled = String(place === hits.length - 1 && !grows);
  }

  /**
   * @param {Hit} hit
   * @returns {HTMLElement | null}
   */
  function tileOf({ id }) {
    return list.querySelector(`[data-id="${id}"] .picture`);
  }

  function showQuery() {
    const small = byId("query-picture").querySelector("img");
    const src = isSearch ? small?.src : kept && smallOf(kept);
    asked.figure.hidden = !src;
    if (!src) return;
    if (kept) {
      const image = element("img", { src, alt: nameOf(kept.uri) });
      asked.content.replaceChildren(image);
      ask(`/v1/images/${kept.id}`).then((known) => enlarge(image, known), () => {});
      return;
    }
    const { id, crop } = entry.asked;
    const put = (/** @type {HTMLImageElement} */ picture) =>
      asked.content.replaceChildren(crop === null ? picture : partOf(picture, crop));
    const image = element("img", { src, alt: "The query" });
    if (crop === null) put(image);
    else image.decode().then(() => put(image), () => {});
    if (id !== null) ask(`/v1/images/${id}`).then((known) => enlarge(image, known, put), () => {});
  }

  async function show() {
    controller.abort();
    controller = new AbortController();
    const { signal } = controller;
    const shown = hits[place];
    change(() => WHOLE);
    title.textContent = nameOf(shown.uri);
    sayPlace();
    tileOf(shown)?.scrollIntoView({ block: "nearest" });
    const image = element("img", { src: smallOf(shown), alt: title.textContent });
    found.content.replaceChildren(image);
    if (kept) {
      asked.figure.hidden = shown === kept;
      found.figcaption.textContent = shown === kept ? asked.figcaption.textContent : sizes(/** @type {File} */ (shown));
    }
    const unitOf = shown === kept ? "" : unit; // its distance from itself says nothing
    renew(...described(shown, unitOf, null, isSearch));
    bits.ariaBusy = "true"; // it is not emptied, so that its summary keeps the focus
    try {
      const known = await ask(`/v1/images/${shown.id}`, { signal });
      renew(...described(shown, unitOf, known, isSearch));
      enlarge(image, known);
      const picture = { ...shown, code: known.code };
      if (isSearch) await describeBits(bits, entry.answer?.code ?? entry.asked.code, picture);
      else await describeBits(bits, shown === kept ? null : kept?.code, picture, "The one to keep");
      if (!signal.aborted) bits.ariaBusy = "false";
    } catch (error) {
      if (signal.aborted) return;
      bits.replaceChildren();
      bits.ariaBusy = "false";
      facts.append(element("p", { className: "gone" }, error instanceof Error ? error.message : ""));
    }
  }

  /**
   * Show other facts; the focus stays on the control of the same name.
   * @param {...Node} described
   */
  function renew(...described) {
    const held = facts.contains(document.activeElement) && document.activeElement;
    facts.replaceChildren(...described);
    if (!held) return;
    const controls = /** @type {NodeListOf<HTMLElement>} */ (facts.querySelectorAll("a, button, input"));
    ([...controls].find((one) => one.textContent === held.textContent) ?? next).focus();
  }
}

/**
 * Show the original in place of a thumbnail, where the service gives it and the browser shows its
 * format; and what the code decodes to, where the gallery keeps no thumbnail.
 * @param {HTMLImageElement} image
 * @param {any} known what the service knows of it
 * @param {(large: HTMLImageElement) => void} [put] shows the original; an image left meanwhile stays so
 */
function enlarge(image, { id, code, original, size }, put = (large) => image.replaceWith(large)) {
  const decode = () => (image.src = reconstruction(code));
  if (image.complete && !image.naturalWidth) decode();
  else image.addEventListener("error", decode, { once: true });
  if (!original || size > LARGEST_BYTES) return;
  const large = element("img", { src: originalOf(id), alt: image.alt });
  large.decode().then(() => put(large), () => {});
}

/**
 * The part of a picture that was searched for.
 * @param {HTMLImageElement} image that is loaded
 * @param {string} crop
 */
function partOf(image, crop) {
  const [left, top, right, bottom] = boxOf(crop);
  const { naturalWidth, naturalHeight, alt } = image;
  const width = Math.max(1, Math.round((right - left) * naturalWidth));
  const height = Math.max(1, Math.round((bottom - top) * naturalHeight));
  const part = element("canvas", { width, height, role: "img", "aria-label": alt });
  part.getContext("2d")?.drawImage(image, -left * naturalWidth, -top * naturalHeight);
  return part;
}

/** @param {Hit} image */
const smallOf = ({ id, code }) => (code && !HAS_PICTURES ? reconstruction(code) : thumbnail(id));

/** @param {number} id */
const originalOf = (id) => `${ROOT}/v1/images/${id}/original`;

/** @param {{width: number, height: number, size: number}} image */
const sizes = ({ width, height, size: bytes }) =>
  `${number(width)} × ${number(height)} pixels, ${size(bytes)}`;

/**
 * @param {Hit} hit
 * @param {string} unit
 * @param {any} known what the service knows of the image; null before it has answered
 * @param {boolean} isSearch whether it was found, and can become an example
 */
function described(hit, unit, known, isSearch) {
  const { closeness, label, missing, uri } = hit;
  const from = element("a", { className: "button", href: `?id=${hit.id}`, data: { id: String(hit.id) } }, "Search from this");
  return [
    element(
      "p",
      {},
      closeness && element("strong", { className: `word ${closeness}` }, closeness),
      closeness && `: ${MEANINGS[closeness]}, `,
      distanceIn(hit.distance, unit),
    ),
    element(
      "p",
      {},
      label && element("strong", {}, `${label}, `),
      known && sizes(known),
      missing && element("span", { className: "gone" }, " (file gone)"),
    ),
    element("p", {}, element("code", {}, pathOf(uri))),
    element(
      "p",
      { className: "ways" },
      ...(isSearch ? toolsInWords(hit, unit) : []),
      from,
      known?.original && element("a", { className: "button", href: originalOf(hit.id), target: "_blank" }, "Open the original"),
      known?.original && element("a", { className: "button", href: originalOf(hit.id), download: nameOf(uri) }, "Download"),
      copyButton("Copy its uri", () => uri),
    ),
  ];
}

/**
 * @param {string} sign
 * @param {string} name
 * @param {string} key
 * @param {() => void} press
 */
function button(sign, name, key, press) {
  const made = element("button", { type: "button", "aria-label": name, title: `${name} (${key})` }, sign);
  made.addEventListener("click", press);
  return made;
}
