/** What narrows a search: labels, folders, and the greatest distance. */

import { element } from "./dom.js";
import { gallery } from "./facts.js";
import { distances } from "./histogram.js";
import { go } from "./navigation.js";
import { number } from "./words.js";

const SHOWN = 8; // labels and folders before "more"

/**
 * @param {import("./navigation.js").Entry} entry
 * @returns {HTMLElement}
 */
export function filters(entry) {
  const chips = element("div", { className: "chips" });
  gallery().then(({ labels }) => chips.replaceChildren(...labelChips(labels, entry.asked.label)), () => {});
  return element("div", { className: "filters" }, chips, distances(entry));
}

/**
 * @param {{label: string, images: number}[]} labels
 * @param {string | null} chosen
 */
function labelChips(labels, chosen) {
  const shown = labels.filter(({ label }, place) => place < SHOWN || label === chosen);
  const hidden = labels.filter((one) => !shown.includes(one));
  const chips = shown.map((one) => chip(one, one.label === chosen));
  if (!hidden.length) return chips;
  const more = element(
    "details",
    { className: "more-labels" },
    element("summary", {}, `${number(hidden.length)} more`),
    element("div", { className: "chips" }, ...hidden.map((one) => chip(one, false))),
  );
  return [...chips, more];
}

/**
 * @param {{label: string, images: number}} one
 * @param {boolean} chosen
 */
function chip({ label, images }, chosen) {
  const button = element(
    "button",
    { type: "button", className: "chip", "aria-pressed": String(chosen) },
    label,
    element("span", { className: "count" }, number(images)),
  );
  button.addEventListener("click", () => go({ label: chosen ? null : label }));
  return button;
}
