/** The stages of a request, and the time that the service spent in each. */

import { element } from "./dom.js";

/** @typedef {Record<string, number>} Stages milliseconds by the name of a stage */

/**
 * @param {string | null} header Server-Timing, such as "search;dur=1.5, catalog;dur=0.2"
 * @returns {Stages}
 */
export function stagesOf(header) {
  return Object.fromEntries(
    [...(header ?? "").matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, name, ms]) => [name, Number(ms)]),
  );
}

/** @param {number} ms */
export const milliseconds = (ms) => `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;

/**
 * The stages, on demand.
 * @param {Stages} stages
 */
export function timing(stages) {
  /** @type {Record<string, string>} */
  const meanings = JSON.parse(document.documentElement.dataset.stages ?? "{}");
  const rows = Object.entries(stages).map(([name, ms]) =>
    element(
      "div",
      {},
      element("dt", {}, name, element("span", {}, meanings[name])),
      element("dd", {}, milliseconds(ms)),
    ),
  );
  const sum = Object.values(stages).reduce((sum, ms) => sum + ms, 0);
  return element(
    "details",
    { className: "timing" },
    element("summary", {}, `${milliseconds(sum)} in the service, all methods together`),
    element("dl", {}, ...rows),
  );
}
