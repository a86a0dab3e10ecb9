/** The pictures that are close to the query, the nearest first, up to where likeness ends. */

import { hasQuery } from "./address.js";
import { byId, element } from "./dom.js";
import { filters } from "./filters.js";
import { openLightbox } from "./lightbox.js";
import { codeIsKnown } from "./navigation.js";
import { examples } from "./picks.js";
import { searchOf } from "./question.js";
import { ask } from "./service.js";
import { tile } from "./tiles.js";
import { counted, number } from "./words.js";

/** @typedef {import("./navigation.js").Entry} Entry */

const PAGE = 60; // hits of a request
const MOST = 10_000; // hits that the service skips at most

/**
 * @param {Entry} entry
 * @param {AbortSignal} signal
 */
export async function showFound(entry, signal) {
  const { asked, picture } = entry;
  if (!picture && !hasQuery(asked)) {
    byId("results").replaceChildren();
    return;
  }
  if (!entry.answer) {
    entry.question = searchOf(asked, picture, { k: PAGE, histogram: true });
    const { path, ...request } = entry.question;
    const answer = await ask(path, { method: "POST", signal, ...request });
    entry.answer = { ...answer, whole: answer.hits.length < PAGE };
    codeIsKnown(entry, answer.code);
  }
  const { answer } = entry;
  const list = element("ol", { className: "tiles" });
  const rest = element("div", { className: "rest" });
  byId("results").replaceChildren(
    element("h2", { id: "found", tabIndex: -1 }, headline(answer)),
    examples(asked) || "",
    filters(entry),
    list,
    rest,
  );
  showHits(entry, list, rest, signal);
}

/**
 * How many pictures are close, as the histogram counts them.
 * @param {any} answer
 */
function headline({ hits, histogram }) {
  const close = hits.filter((/** @type {any} */ hit) => hit.closeness && hit.closeness !== "far");
  if (!hits.length) return "No picture is within this distance";
  if (!hits[0].closeness) return `The ${counted(hits.length, "nearest picture")}`;
  if (!close.length) return "Nothing close";
  const whole = close.length < hits.length ? number(close.length) : `At least ${number(close.length)}`;
  return `${whole} close ${close.length === 1 ? "picture" : "pictures"}`;
}

/**
 * @param {Entry} entry
 * @param {HTMLElement} list
 * @param {HTMLElement} rest of the list: the button for what is far, or the end
 * @param {AbortSignal} signal
 */
function showHits(entry, list, rest, signal) {
  const { answer } = entry;
  const end = answer.hits.findIndex((/** @type {any} */ hit) => hit.closeness === "far");
  const close = end < 0 || answer.showsFar ? answer.hits : answer.hits.slice(0, end);
  const open = (/** @type {any} */ hit) => openLightbox(entry, answer.hits, hit);
  const tiles = close.map((/** @type {any} */ hit) => tile(hit, answer.unit, { open }));
  if (end >= 0 && answer.showsFar) {
    tiles.splice(end, 0, element("li", { className: "end" }, LINE));
  }
  list.replaceChildren(...tiles);
  if (end >= 0 && !answer.showsFar) {
    const more = element("button", { type: "button" }, "Show the nearest of the others");
    more.addEventListener("click", () => {
      answer.showsFar = true;
      showHits(entry, list, rest, signal);
    });
    rest.replaceChildren(
      element("p", { className: "end" }, end ? LINE : NOTHING_CLOSE),
      more,
    );
  } else if (answer.whole || answer.hits.length >= MOST) {
    rest.replaceChildren();
  } else {
    const sentinel = element("p", { className: "more" }, "Loading more…");
    rest.replaceChildren(sentinel);
    const observer = new IntersectionObserver(
      async ([{ isIntersecting }]) => {
        if (!isIntersecting) return;
        observer.disconnect();
        await loadMore(entry, signal);
        showHits(entry, list, rest, signal);
      },
      { rootMargin: "600px" },
    );
    observer.observe(sentinel);
    signal.addEventListener("abort", () => observer.disconnect());
  }
}

const LINE = "Here likeness ends: unlike pictures may be as near as those that follow.";
const NOTHING_CLOSE =
  "No picture of this gallery is closer to yours than chance brings unlike pictures.";

/**
 * @param {Entry} entry
 * @param {AbortSignal} signal
 */
async function loadMore({ asked, picture, answer }, signal) {
  const { path, ...request } = searchOf(asked, picture, { k: PAGE, offset: answer.hits.length });
  const next = await ask(path, { method: "POST", signal, ...request });
  answer.hits.push(...next.hits);
  answer.whole = next.hits.length < PAGE;
}
