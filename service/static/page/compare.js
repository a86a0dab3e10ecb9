/** The same query answered by several methods, side by side. */

import { hasQuery } from "./address.js";
import { byId, element } from "./dom.js";
import { openLightbox } from "./lightbox.js";
import { codeIsKnown } from "./navigation.js";
import { comparisonOf } from "./question.js";
import { ask } from "./service.js";
import { tile } from "./tiles.js";
import { number } from "./words.js";

const K = 20;

/**
 * @param {import("./navigation.js").Entry} entry
 * @param {AbortSignal} signal
 */
export async function showComparison(entry, signal) {
  const { asked, picture } = entry;
  if (!picture && !hasQuery(asked)) {
    byId("results").replaceChildren();
    return;
  }
  if (!entry.answer) {
    const { path, ...request } = comparisonOf(asked, picture, K);
    entry.answer = await ask(path, { method: "POST", signal, ...request });
    codeIsKnown(entry, entry.answer.code);
  }
  const columns = entry.answer.methods.map((/** @type {any} */ method) =>
    element(
      "section",
      { className: "column" },
      element("h2", {}, method.title),
      element("p", { className: "cost" }, `${number(method.image_bytes)} bytes an image, ${method.latency_ms.toFixed(1)} ms`),
      element(
        "ol",
        { className: "tiles" },
        ...method.hits.map((/** @type {any} */ hit) =>
          tile(hit, method.unit, { open: (one) => openLightbox(entry, method.hits, one) }),
        ),
      ),
    ),
  );
  byId("results").replaceChildren(element("div", { className: "columns" }, ...columns));
}
