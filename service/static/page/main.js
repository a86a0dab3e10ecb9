/** The page: each view, and each way to ask. */

import { hasQuery, NOTHING } from "./address.js";
import { showComparison } from "./compare.js";
import { showDuplicates } from "./duplicates.js";
import { showFound } from "./find.js";
import { gallery } from "./facts.js";
import { showGallery } from "./gallery.js";
import { askById, askFor, begin, fail, go, searches, shown } from "./navigation.js";
import { fileOf } from "./pictures.js";
import { keepSelection } from "./picks.js";
import { searchOf } from "./question.js";
import { showQuery } from "./query.js";
import { ask, pictureOf, Problem } from "./service.js";
import { showQuestion, showTools } from "./tools.js";

/** @typedef {import("./navigation.js").Entry} Entry */

const MOST_SKIPPED = 10_000; // images, by the service

const TITLES = { find: "Search", compare: "Compare", duplicates: "Duplicates", gallery: "Gallery" };

const VIEWS = {
  find: showFound,
  compare: showComparison,
  duplicates: showDuplicates,
  gallery: showGallery,
};

/**
 * @param {Entry} entry
 * @param {AbortSignal} signal
 */
async function draw(entry, signal) {
  const { asked } = entry;
  const isSearch = searches(asked.view) === asked.view;
  document.body.dataset.view = asked.view;
  document.title = `${TITLES[asked.view]} · HashSearch`;
  document.body.classList.toggle("asked", isSearch && (hasQuery(asked) || entry.picture !== null));
  for (const link of document.querySelectorAll("nav a")) {
    const view = link instanceof HTMLElement ? link.dataset.view : "";
    if (view === asked.view || (isSearch && view === "find")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    if (asked.crop && !entry.picture && asked.id !== null) {
      entry.picture = await pictureOf(asked.id, signal).catch((error) => {
      if (!signal.aborted) showQuery(entry); // and not the former one
      throw error;
    });
    }
    keepSelection(entry);
    if (isSearch) {
      showQuery(entry);
      showTools();
    }
    await VIEWS[asked.view](entry, signal);
  } finally {
    if (isSearch && !signal.aborted) showQuestion();
  }
}

function listen() {
  // An empty gallery has no place to ask.
  for (const input of /** @type {NodeListOf<HTMLInputElement>} */ (
    document.querySelectorAll("#file, #camera")
  )) {
    input.addEventListener("change", () => {
      const [chosen] = input.files ?? [];
      input.value = ""; // the same file may be chosen again
      if (chosen) askFor(chosen);
    });
  }
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    take(event.dataTransfer);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) take(event.clipboardData);
  });
  document.getElementById("surprise")?.addEventListener("click", surprise);
  document.querySelector(".skip")?.addEventListener("click", (event) => {
    event.preventDefault(); // a fragment in the address would be an entry of the history
    document.getElementById("results")?.focus();
  });
  document.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return; // opens another tab
    const link = /** @type {Element} */ (event.target).closest("a[data-id], a[data-view]");
    if (!(link instanceof HTMLAnchorElement)) return;
    event.preventDefault();
    if (link.dataset.id) askById(Number(link.dataset.id));
    else {
      const view = /** @type {import("./address.js").View} */ (link.dataset.view);
      const { view: former } = shown().asked;
      // A radius of duplicates is none of a search, and a list of the gallery no filter.
      const isOther = (view === "duplicates") !== (former === "duplicates");
      const lists = [view, former].includes("gallery") && { label: null, folder: null };
      go({ view, ...(isOther && { radius: null }), ...lists });
    }
  });
}

/** @param {DataTransfer | null} given */
function take(given) {
  try {
    if (given) askFor(fileOf(given));
  } catch (error) {
    fail(error);
  }
}

/** Search from an image that chance chooses: one of those around a random code. */
async function surprise() {
  try {
    const before = shown();
    const { images } = await gallery();
    const code = [...crypto.getRandomValues(new Uint8Array(32))]
      .map((byte) => byte.toString(16).padStart(2, "0"))
      .join("");
    const offset = Math.floor(Math.random() * Math.min(images, MOST_SKIPPED));
    const { path, ...request } = searchOf({ ...NOTHING, code }, null, { k: 1, offset });
    const { hits } = await ask(path, { method: "POST", ...request });
    if (shown() !== before) return; // something else is asked since
    if (!hits.length) throw new Problem("no picture came; the gallery may have changed, so reload this page");
    askById(hits[0].id);
  } catch (error) {
    fail(error);
  }
}

listen();
begin(draw);
