/** What a view shows while it loads, when it has nothing to show, and when it failed. */

import { byId, element } from "./dom.js";
import { Problem } from "./service.js";

const LATE_MS = 150; // after which an answer is late; sooner, empty tiles would only flash
const LATE_TILES = 18;
const SEARCHING = "Searching…";

/**
 * Wait until an answer is shown. If it is late, empty tiles take the place of the former results,
 * which would be taken for it.
 * @param {Promise<void>} showing
 * @param {string} kept a selector of the parts of the results that are kept: what it is asked with
 * @param {AbortSignal} signal
 */
export async function awaited(showing, kept, signal) {
  const timer = setTimeout(() => showLate(kept), LATE_MS);
  signal.addEventListener("abort", () => clearTimeout(timer));
  try {
    await showing;
  } finally {
    clearTimeout(timer);
    const status = byId("status");
    if (status.textContent === SEARCHING) status.textContent = "";
  }
}

/** @param {string} kept */
function showLate(kept) {
  const results = byId("results");
  const held = results.contains(document.activeElement) && document.activeElement;
  const former = [...results.children].filter((part) => !part.matches(kept));
  const title = element("h2", { tabIndex: -1 }, SEARCHING);
  results.insertBefore(title, former[0] ?? null);
  for (const part of former) part.remove();
  results.append(skeleton(LATE_TILES));
  if (held && !held.isConnected) {
    title.id = held.id; // what has this id in the answer gets the focus
    title.focus({ preventScroll: true });
  }
  byId("status").textContent = SEARCHING;
}

/**
 * Replace what is shown. A focus that was in it goes to what has the same id now; to the heading, if
 * nothing has, or if it is folded up; or else to the place.
 * @param {HTMLElement} place
 * @param {...Node} children
 */
export function replace(place, ...children) {
  const held = place.contains(document.activeElement) && document.activeElement;
  place.replaceChildren(...children);
  if (!held) return;
  for (const target of [document.getElementById(held.id), place.querySelector("h2"), place]) {
    target?.focus({ preventScroll: true });
    if (target && target === document.activeElement) return;
  }
}

/**
 * Tiles without pictures, of the size of the tiles that are loading.
 * @param {number} count
 */
export function skeleton(count) {
  const tiles = Array.from({ length: count }, () =>
    element(
      "li",
      { className: "tile" },
      element("span", { className: "picture" }),
      element("p", { className: "name" }, "\u00a0"),
      element("p", { className: "said" }, "\u00a0"),
    ),
  );
  return element("ul", { className: "tiles skeleton", "aria-hidden": "true" }, ...tiles);
}

/**
 * @param {string} title
 * @param {...(Node | string)} children
 */
export function empty(title, ...children) {
  return element(
    "div",
    { className: "empty" },
    element("h2", { className: "invitation", tabIndex: -1 }, title),
    element("p", {}, ...children),
  );
}

/** A gallery without images, and the command that fills it. */
export function emptyGallery() {
  const command = code("hashsearch index PICTURES --gallery GALLERY");
  return empty("This gallery is empty", "Fill it with ", command, "; then reload this page.");
}

/** @param {string} text that is typed into a terminal */
export const code = (text) => element("code", {}, text);

/**
 * What went wrong, and a button that tries it again, where that can help.
 * @param {unknown} error
 * @param {() => void} again
 */
export function trouble(error, again) {
  if (!(error instanceof Problem)) console.error(error);
  const said = error instanceof Problem ? error.message : "The page failed.";
  const mayPass = error instanceof Problem && error.mayPass;
  const button = element("button", {}, "Try again");
  button.addEventListener("click", () => {
    byId("results").focus({ preventScroll: true }); // the button goes
    again();
  });
  return element("div", { className: "trouble", role: "alert" }, element("p", {}, said), mayPass && button);
}

/**
 * Fill a place with the pages of a list: the first at once, each further one by a button.
 * @param {HTMLElement} place
 * @param {(after: string | null) => Promise<{shown: Node[], next: string | null}>} page the one
 *   after another's `next`; null: the first
 * @param {AbortSignal} [signal]
 */
export async function fill(place, page, signal) {
  /** @type {string | null} */
  let after = null;
  /** @type {HTMLElement | null} */
  let rest = null; // last in the place: the button, or what went wrong
  const load = async () => {
    try {
      const { shown, next } = await page(after);
      const first = place.querySelectorAll(CONTROLS).length - 1; // of those that come now
      const isHeld = rest?.contains(document.activeElement);
      rest?.remove();
      place.append(...shown);
      rest = next ? moreButton(load) : null;
      after = next;
      if (isHeld) /** @type {HTMLElement} */ (place.querySelectorAll(CONTROLS)[first])?.focus();
    } catch (error) {
      if (signal?.aborted) return;
      rest?.remove();
      rest = trouble(error, load);
    }
    if (rest) place.append(rest);
  };
  await load();
}

const CONTROLS = "a, button";

/** @param {() => void} load */
export function moreButton(load) {
  const button = element("button", { type: "button" }, "Show more");
  button.addEventListener("click", load, { once: true }); // another takes its place
  return button;
}

/**
 * Call once when an element comes near the part of the page that is seen.
 * @param {HTMLElement} waited
 * @param {() => void} seen
 * @param {AbortSignal} signal
 */
export function whenSeen(waited, seen, signal) {
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
      observer.disconnect();
      seen();
    },
    { rootMargin: "600px" },
  );
  observer.observe(waited);
  signal.addEventListener("abort", () => observer.disconnect());
}
