/** What narrows a search: labels, folders, and the greatest distance. */

import { element } from "./dom.js";
import { gallery } from "./facts.js";
import { distances } from "./histogram.js";
import { go } from "./navigation.js";
import { ask } from "./service.js";
import { number, pathOf } from "./words.js";

const SHOWN = 12; // labels and folders before "more"

/**
 * Labels and folders.
 * @param {import("./navigation.js").Entry} entry
 * @param {...Node} others
 * @returns {HTMLElement}
 */
export function narrowing(entry, ...others) {
  const chips = element("div", { className: "chips labels" });
  gallery().then(({ labels }) => chips.replaceChildren(...labelChips(labels, entry.asked.label)), () => {});
  return element("div", {}, chips, element("div", { className: "others" }, folders(entry), ...others));
}

/**
 * Everything that narrows a search by code.
 * @param {import("./navigation.js").Entry} entry
 */
export function filters(entry) {
  return element("div", { className: "filters" }, narrowing(entry, once(entry)), distances(entry));
}

/**
 * The folder that is searched, and those within it.
 * @param {import("./navigation.js").Entry} entry
 */
function folders({ asked: { folder } }) {
  const chips = element("div", { className: "chips" });
  const path = folder === null ? "all folders" : pathOf(folder);
  const list = element("details", {}, element("summary", {}, `Folder: ${path}`), chips);
  list.addEventListener("toggle", async () => {
    if (!list.open || chips.childElementCount) return;
    const query = folder === null ? "" : `?prefix=${encodeURIComponent(folder)}`;
    try {
      const { folders } = await ask(`/v1/gallery/folders${query}`);
      const all = chip({ label: "all folders", images: null }, folder === null, () => go({ folder: null }));
      chips.replaceChildren(
        all,
        ...folders.map((/** @type {any} */ { prefix, name, images }) =>
          chip({ label: name, images }, false, () => go({ folder: prefix })),
        ),
      );
    } catch (error) {
      chips.replaceChildren(element("span", { role: "alert" }, error instanceof Error ? error.message : ""));
    }
  });
  return list;
}

/**
 * Whether pictures that are nearly equal are shown once.
 * @param {import("./navigation.js").Entry} entry
 */
function once({ asked }) {
  const box = element("input", { type: "checkbox", checked: asked.once, id: "once" });
  box.addEventListener("change", () => go({ once: box.checked }, { replace: true, stay: true }));
  return element("label", { className: "check" }, box, "Hide near-duplicates");
}

/**
 * Those that the service lists, and the chosen one, which an address may name.
 * @param {{label: string, images: number | null}[]} listed
 * @param {string | null} chosen
 */
function labelChips(listed, chosen) {
  const isListed = chosen === null || listed.some(({ label }) => label === chosen);
  const labels = isListed ? listed : [{ label: chosen, images: null }, ...listed];
  const shown = labels.filter(({ label }, place) => place < SHOWN || label === chosen);
  const hidden = labels.filter((one) => !shown.includes(one));
  const chips = shown.map((one) => labelChip(one, chosen));
  if (!hidden.length) return chips;
  const more = element(
    "details",
    { className: "more-labels" },
    element("summary", {}, `${number(hidden.length)} more`),
    element("div", { className: "chips" }, ...hidden.map((one) => labelChip(one, chosen))),
  );
  return [...chips, more];
}

/**
 * @param {{label: string, images: number | null}} one
 * @param {string | null} chosen
 */
function labelChip(one, chosen) {
  const isChosen = one.label === chosen;
  return chip(one, isChosen, () => go({ label: isChosen ? null : one.label }));
}

/**
 * @param {{label: string, images: number | null}} one
 * @param {boolean} chosen
 * @param {() => void} press
 */
function chip({ label, images }, chosen, press) {
  const button = element(
    "button",
    { type: "button", className: "chip", id: `chip ${label}`, "aria-pressed": String(chosen) },
    label,
    images !== null && element("span", { className: "count" }, number(images)),
  );
  button.addEventListener("click", press);
  return button;
}
