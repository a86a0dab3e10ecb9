/** The pictures that are close to the query, the nearest first, up to where likeness ends. */

import { hasQuery } from "./address.js";
import { distanceOf } from "./bits.js";
import { byId, element } from "./dom.js";
import { gallery } from "./facts.js";
import { filters } from "./filters.js";
import { sums } from "./histogram.js";
import { openLightbox } from "./lightbox.js";
import { codeIsKnown } from "./navigation.js";
import { examples } from "./picks.js";
import { others, searchOf } from "./question.js";
import { ask } from "./service.js";
import { replace, trouble, whenSeen } from "./states.js";
import { tile } from "./tiles.js";
import { counted } from "./words.js";

/** @typedef {import("./navigation.js").Entry} Entry */
/** @typedef {import("./tiles.js").Hit} Hit */

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
    entry.answer = { ...answer, hits: others(entry, answer.hits), whole: answer.hits.length < PAGE };
    codeIsKnown(entry, answer.code);
  }
  const { answer } = entry;
  const { closeness } = await gallery();
  signal.throwIfAborted();
  const title = headline(answer, closeness);
  byId("status").textContent = title;
  replace(
    byId("results"),
    element("h2", { id: "found", tabIndex: -1 }, title),
    examples(asked) || element("span"),
    filters(entry),
    hits(entry, closeness, signal),
  );
}

/**
 * How many pictures are close.
 * @param {any} answer
 * @param {{alike: number} | null} closeness
 */
function headline({ hits, histogram, asked: { radius } }, closeness) {
  if (!hits.length) return radius === null ? "No picture to be found" : "No picture is this close";
  if (!histogram || !closeness) return "The nearest pictures";
  const close = sums(histogram)[Math.min(closeness.alike, radius ?? Infinity)];
  return close ? counted(close, "close picture") : "Nothing close";
}

/**
 * The hits as tiles: those that are close, then a line, and on demand the others.
 * @param {Entry} entry
 * @param {{same: number} | null} closeness
 * @param {AbortSignal} signal
 */
function hits(entry, closeness, signal) {
  const { answer, asked } = entry;
  const same = asked.once ? (closeness?.same ?? 0) : -1;
  const list = element("ol", { className: "tiles" });
  const rest = element("div", { className: "rest" });
  const open = (/** @type {Hit} */ hit) => openLightbox(entry, shown, hit);
  /** @type {Hit[]} */
  const shown = [];
  let place = 0; // of the first hit that is not looked at
  let hasLine = false;
  show();
  return element("div", {}, list, rest);

  /** Add tiles for the hits that came since, up to the line. */
  function show() {
    for (; place < answer.hits.length; place++) {
      /** @type {Hit} */
      const hit = answer.hits[place];
      if (hit.closeness === "far" && !hasLine) {
        // Who sets a distance beyond the line wants to see what lies there.
        if (!answer.showsFar && asked.radius === null) return end(shown.length > 0);
        if (shown.length) list.append(element("li", { className: "end" }, LINE));
        hasLine = true;
      }
      if (shown.some((one) => isCopy(one, hit, same))) continue;
      shown.push(hit);
      list.append(tile(hit, answer.unit, { open }));
    }
    if (answer.whole || answer.hits.length >= MOST) rest.replaceChildren();
    else loadOnScrolling();
  }

  /** @param {boolean} hasClose */
  function end(hasClose) {
    const more = element("button", { type: "button" }, "Show the nearest of the others");
    more.addEventListener("click", () => {
      answer.showsFar = true;
      const next = list.children.length;
      show();
      list.children[next]?.querySelector("button")?.focus();
    });
    rest.replaceChildren(element("p", { className: "end" }, hasClose ? LINE : NOTHING_CLOSE), more);
  }

  function loadOnScrolling() {
    const sentinel = element("p", { className: "more" }, "Loading more…");
    rest.replaceChildren(sentinel);
    const next = async () => {
      try {
        await loadMore(entry, signal);
        show();
      } catch (error) {
        if (!signal.aborted) rest.replaceChildren(trouble(error, loadOnScrolling));
      }
    };
    whenSeen(sentinel, next, signal);
  }
}

/**
 * Whether a picture is a near-duplicate of another.
 * @param {Hit} first
 * @param {Hit} second
 * @param {number} same greatest distance of copies; negative if copies are not looked for
 */
const isCopy = (first, second, same) =>
  same >= 0 && first.code !== null && second.code !== null && distanceOf(first.code, second.code) <= same;

const LINE = "Here likeness ends: unlike pictures may be as near as those that follow.";
const NOTHING_CLOSE =
  "No picture of this gallery is closer to yours than chance brings unlike pictures.";

/**
 * @param {Entry} entry
 * @param {AbortSignal} signal
 */
async function loadMore(entry, signal) {
  const { asked, picture, answer } = entry;
  const offset = (answer.offset ?? 0) + PAGE;
  const { path, ...request } = searchOf(asked, picture, { k: PAGE, offset });
  const next = await ask(path, { method: "POST", signal, ...request });
  answer.offset = offset; // not before, since what failed is tried again
  answer.hits.push(...others(entry, next.hits));
  answer.whole = next.hits.length < PAGE;
}
