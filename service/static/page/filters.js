/** What narrows a search: labels, folders, and the greatest distance. */

import { element } from "./dom.js";
import { gallery } from "./facts.js";
import { go } from "./navigation.js";
import { counted, number } from "./words.js";

const SHOWN = 8; // labels and folders before "more"

/**
 * @param {import("./navigation.js").Entry} entry
 * @returns {HTMLElement}
 */
export function filters(entry) {
  const chips = element("div", { className: "chips" });
  gallery().then(({ labels }) => chips.replaceChildren(...labelChips(labels, entry.asked.label)), () => {});
  return element("div", { className: "filters" }, chips, slider(entry));
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

/**
 * The greatest distance, and how many pictures lie within it.
 * @param {import("./navigation.js").Entry} entry
 */
function slider({ asked, answer }) {
  /** @type {number[]} */
  const histogram = answer.histogram ?? [];
  const within = histogram.map((sum = 0) => sum);
  for (let bits = 1; bits < within.length; bits++) within[bits] += within[bits - 1];
  const output = element("output", {});
  const input = element("input", {
    type: "range",
    min: "0",
    max: "160",
    value: String(asked.radius ?? 160),
    "aria-label": "Greatest distance in bits",
  });
  const say = () => {
    const bits = Number(input.value);
    const all = bits === 160;
    output.value = all ? "any distance" : `${bits} bits: ${counted(within[bits] ?? 0, "picture")}`;
    input.setAttribute("aria-valuetext", output.value);
  };
  say();
  input.addEventListener("input", say);
  input.addEventListener("change", () => {
    const bits = Number(input.value);
    go({ radius: bits === 160 ? null : bits }, { replace: true });
  });
  return element("label", { className: "slider" }, "Within", input, output);
}
