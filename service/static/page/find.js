/** The pictures that are close to the query, the nearest first, up to where likeness ends. */

import { hasQuery } from "./address.js";
import { isWithin, numbersOf } from "./bits.js";
import { byId, element } from "./dom.js";
import { gallery } from "./facts.js";
import { filters } from "./filters.js";
import { atRest, sums } from "./histogram.js";
import { openLightbox } from "./lightbox.js";
import { codeIsKnown } from "./navigation.js";
import { examples } from "./picks.js";
import { hasExamples, others, searchOf } from "./question.js";
import { ask } from "./service.js";
import { awaited, replace, trouble, whenSeen } from "./states.js";
import { tile } from "./tiles.js";
import { counted, number, PARTIAL } from "./words.js";

/** @typedef {import("./navigation.js").Entry} Entry */
/** @typedef {import("./tiles.js").Hit} Hit */

const PAGE = 60; // hits of a request
const MOST = 10_000; // hits that the service skips at most
const FEW = 8; // hits that are shown where none is close

/**
 * @param {Entry} entry
 * @param {AbortSignal} signal
 */
export const showFound = (entry, signal) => awaited(show(entry, signal), ".in-find", signal);

/**
 * @param {Entry} entry
 * @param {AbortSignal} signal
 */
async function show(entry, signal) {
  const { asked, picture } = entry;
  if (!picture && !hasQuery(asked)) {
    byId("results").replaceChildren();
    return;
  }
  const described = gallery(); // is asked beside the search
  described.catch(() => {});
  if (!entry.answer) {
    entry.question = searchOf(asked, picture, { k: PAGE, histogram: true });
    const { path, ...request } = entry.question;
    const answer = await ask(path, { method: "POST", signal, ...request });
    entry.answer = {
      ...answer,
      unit: hasExamples(asked) ? "" : answer.unit, // to examples, there are sums of distances
      hits: others(entry, answer.hits),
      histogram: await countsOf(entry, answer, signal),
      whole: answer.hits.length < PAGE,
    };
    codeIsKnown(entry, answer.code);
  }
  const { answer } = entry;
  const { closeness, labels } = await described;
  await atRest();
  signal.throwIfAborted();
  const title = element("h2", { id: "found", tabIndex: -1 });
  const shown = hits(entry, closeness, signal, (hidden) => {
    const said = headline(answer, closeness, hidden);
    title.textContent = hidden ? `${said}, ${counted(hidden, "near-duplicate")} hidden` : said;
  });
  byId("status").textContent = title.textContent;
  replace(
    byId("results"),
    title,
    ...(answer.partial ? [element("p", { className: "partial" }, PARTIAL)] : []),
    examples(asked) || element("span"),
    filters(entry, labels),
    shown,
  );
}

/**
 * The number of pictures at each distance, without the image of which a part is searched for.
 * @param {Entry} entry
 * @param {any} answer of the service
 * @param {AbortSignal} signal
 * @returns {Promise<number[] | null>}
 */
async function countsOf({ asked, picture }, { code, histogram }, signal) {
  if (!histogram || !picture || asked.id === null) return histogram;
  const { path, type } = searchOf({ ...asked, code, radius: null }, null, { k: 1 });
  const body = JSON.stringify({ code, ids: [asked.id] });
  const { hits: own } = await ask(path, { method: "POST", signal, type, body });
  return histogram.map((/** @type {number} */ count, /** @type {number} */ bits) =>
    own[0]?.distance === bits ? count - 1 : count,
  );
}

/**
 * How many pictures are close.
 * @param {any} answer
 * @param {{alike: number} | null} closeness
 * @param {number} hidden of them
 */
function headline({ hits, histogram, asked: { radius } }, closeness, hidden) {
  if (!hits.length) return radius === null ? "No picture to be found" : "No picture is this close";
  if (isFar(hits[0])) return "Nothing close";
  if (!histogram || !closeness) return "The nearest pictures";
  const close = sums(histogram)[Math.min(closeness.alike, radius ?? Infinity)];
  return counted(close - hidden, "close picture");
}

/** @param {Hit} hit */
const isFar = ({ closeness }) => closeness === "far";

/**
 * The hits as tiles: those that are close, then a line, and on demand the others. If none is close,
 * a few of the others.
 * @param {Entry} entry
 * @param {{same: number} | null} closeness
 * @param {AbortSignal} signal
 * @param {(hidden: number) => void} say how many near-duplicates of close pictures are hidden
 */
function hits(entry, closeness, signal, say) {
  const { answer, asked } = entry;
  const same = closeness?.same ?? 0; // greatest distance of copies
  const hasClose = answer.hits.length > 0 && !isFar(answer.hits[0]);
  const list = element("ol", { className: "tiles" });
  const rest = element("div", { className: "rest" });
  let sayMore = () => {}; // to what is shown large
  /** @type {import("./tiles.js").Actions["open"]} */
  const open = (hit, opener) => {
    sayMore = openLightbox(entry, { hits: shown, hit, unit: answer.unit, opener, mayGrow: () => mayGrow });
  };
  /** @type {Hit[]} */
  const shown = [];
  let mayGrow = false; // by scrolling
  /** @type {Uint32Array[]} */
  const codes = []; // of these, if copies are hidden
  let hidden = 0;
  let place = 0; // of the first hit that is not looked at
  let far = 0; // of the hits that are shown
  add();
  if (hasClose || !shown.length) return element("div", {}, list, rest);
  return element(
    "section",
    { className: "unlike" },
    element("p", { className: "end" }, nothingClose(asked)),
    element("h3", {}, "The nearest pictures"),
    list,
    rest,
  );

  /** Add tiles for the hits that came since, up to the line. */
  function add() {
    for (; place < answer.hits.length; place++) {
      /** @type {Hit} */
      const hit = answer.hits[place];
      const code = asked.once && hit.code ? numbersOf(hit.code) : null;
      if (code && codes.some((one) => isWithin(one, code, same))) {
        if (!isFar(hit)) hidden++;
        continue;
      }
      if (isFar(hit)) {
        // Who sets a distance beyond the line wants to see what lies there.
        const most = answer.showsFar || asked.radius !== null ? Infinity : hasClose ? 0 : FEW;
        if (far >= most) break;
        if (hasClose && !far) list.append(element("li", { className: "end" }, LINE));
        far++;
      }
      shown.push(hit);
      if (code) codes.push(code);
      list.append(tile(hit, answer.unit, { open }));
    }
    say(hidden);
    const isAll = place === answer.hits.length; // none of them is beyond the line
    mayGrow = isAll && !answer.whole && answer.hits.length < MOST;
    sayMore();
    if (!isAll) end();
    else if (mayGrow) loadOnScrolling();
    else if (answer.whole) rest.replaceChildren();
    else rest.replaceChildren(element("p", { className: "end" }, lastOf(answer.hits)));
  }

  function end() {
    const title = hasClose ? "Show the nearest of the others" : "Show more of the others";
    const more = element("button", { type: "button" }, title);
    more.addEventListener("click", () => {
      answer.showsFar = true;
      const next = shown.length;
      add();
      const pictures = list.querySelectorAll(".picture");
      /** @type {HTMLElement | undefined} */ (pictures[next])?.focus();
    });
    rest.replaceChildren(...(hasClose ? [element("p", { className: "end" }, LINE)] : []), more);
  }

  function loadOnScrolling() {
    const sentinel = element("p", { className: "more" }, "Loading more…");
    rest.replaceChildren(sentinel);
    const next = async () => {
      try {
        await loadMore(entry, signal);
        add();
      } catch (error) {
        if (signal.aborted) return;
        rest.replaceChildren(trouble(error, loadOnScrolling));
        mayGrow = false; // before it is tried again
        sayMore();
      }
    };
    whenSeen(sentinel, next, signal);
  }
}

const LINE = "Here likeness ends: from here on, the code alone cannot tell like pictures from unlike ones.";

/** @param {import("./address.js").Asked} asked */
function nothingClose({ label, folder }) {
  const among = label === null && folder === null ? "of this gallery" : "among those chosen";
  return `The code is not sure of any picture ${among}: unlike pictures may be as near as these.`;
}

/** @param {Hit[]} hits */
const lastOf = ({ length }) => `The list ends here, with the ${number(length)} nearest pictures.`;

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
