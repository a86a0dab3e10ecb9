/** What is shown, what was shown before, and how the page comes from one to the other. */

import { addressOf, askedOf, NOTHING } from "./address.js";
import { byId, element } from "./dom.js";
import { HAS_PICTURES, METHODS } from "./facts.js";
import { prepared } from "./pictures.js";
import { Problem } from "./service.js";

/**
 * @typedef {import("./address.js").Asked} Asked
 *
 * @typedef {object} Entry one entry of the browser's history, while the page is open
 * @property {Asked} asked
 * @property {Blob | null} picture the query, if it was given as a file or is a part of an image
 * @property {any} answer what the view got, to be shown again without asking
 * @property {number | null} scroll null: as it is
 * @property {import("./question.js").Question} [question] whose answer that is
 */

const MOST_KEPT = 100; // entries; those not shown for longest are asked for again

/** @type {Map<string, Entry>} */
const entries = new Map();
/** @type {Entry} */
let current;
let controller = new AbortController();
let turns = 0; // pictures that were given
/** @type {Problem | null} */
let refused = null; // why a picture was, until it is said beside what was shown before
let uncover = () => {}; // takes away what lies over the results
/** @type {(entry: Entry, signal: AbortSignal) => Promise<void>} */
let draw;

/**
 * @param {string} key
 * @param {Entry} entry
 */
function keep(key, entry) {
  entries.delete(key);
  entries.set(key, entry); // as the last one
  const [oldest] = entries.keys();
  if (entries.size > MOST_KEPT) entries.delete(oldest);
}

/** What is shown. */
export const shown = () => current;

/**
 * Begin with what the address says.
 * @param {typeof draw} drawing shows an entry
 */
export function begin(drawing) {
  draw = drawing;
  addEventListener("popstate", () => {
    uncover();
    if (history.state?.over) history.back(); // what lay there is gone
    else if (entries.get(history.state?.key) === current) {
      // It may have got its address while something lay over it.
      history.replaceState(history.state, "", location.pathname + addressOf(current.asked));
    } else {
      current.scroll = scrollY;
      showAddress();
    }
  });
  if (history.state?.over) history.back(); // the page was loaded again
  return showAddress();
}

history.scrollRestoration = "manual";

/**
 * Show something else; the browser's Back returns to what is shown now. What is shown already is
 * not asked for again.
 * @param {Partial<Asked>} changes to what is asked now
 * @param {{picture?: Blob | null, replace?: boolean, stay?: boolean, same?: boolean}} [how]
 *   replace: do not keep what is shown now; stay: do not scroll; same: the answer stays the same
 */
export function go(changes, how = {}) {
  const { picture = current.picture, replace = false, stay = false, same = false } = how;
  uncover();
  const asked = { ...current.asked, ...changes };
  if (picture === current.picture && JSON.stringify(asked) === JSON.stringify(current.asked)) return;
  current.scroll = scrollY;
  const key = replace ? history.state.key : crypto.randomUUID?.() ?? String(Math.random());
  const { answer, question } = current;
  current = { asked, picture, answer: null, scroll: stay ? null : 0, ...(same && { answer, question }) };
  keep(key, current);
  const address = location.pathname + addressOf(asked);
  if (replace || history.state.over) history.replaceState({ key }, "", address);
  else history.pushState({ key }, "", address);
  return show(current);
}

/**
 * Lay something over the results, as an entry of the history: Back takes it away, and so does what
 * is shown next, which takes the place of that entry.
 * @param {() => void} close takes it away
 * @returns {() => void} does what Back does
 */
export function layOver(close) {
  uncover = close;
  history.pushState({ ...history.state, over: true }, "");
  let isLeft = false;
  return () => {
    if (!isLeft && history.state.over) history.back();
    isLeft = true;
  };
}

/**
 * Search for a picture, of which nothing else is known. If the service refuses it, what was shown
 * before is shown again.
 * @param {Blob} file
 */
export async function askFor(file) {
  const turn = ++turns;
  try {
    busy(true);
    const [before, picture] = [current, await prepared(file)];
    if (turn !== turns || before !== current) return; // something else is asked meanwhile
    const failed = await go(kept(), { picture });
    if (!(failed instanceof Problem) || failed.mayPass || current.picture !== picture) return;
    refused = failed;
    entries.delete(history.state.key); // Forward does not send it again
    history.back();
  } catch (error) {
    fail(error);
  }
}

/**
 * Search from an image of the gallery.
 * @param {number} id
 */
export function askById(id) {
  const shown = go({ ...kept(), id }, { picture: null }); // keeps how far was scrolled, for Back
  scrollTo({ top: 0 });
  return shown;
}

/**
 * What a new query keeps of what is shown. The label or folder that the gallery lists is no filter.
 * @returns {Asked}
 */
function kept() {
  const { view, label, folder, methods, once } = current.asked;
  const filters = view !== "gallery" && { label, folder };
  return { ...NOTHING, view: searches(view), ...filters, methods, once };
}

/**
 * The code of a query that was given as a picture becomes part of what is asked, so that it need
 * not be sent again.
 * @param {Entry} entry
 * @param {string | null} code
 */
export function codeIsKnown(entry, code) {
  const isWhole = entry.asked.id !== null && !entry.picture; // of the gallery; its id says more
  if (entry !== current || isWhole || code === null) return;
  entry.asked = { ...entry.asked, code };
  history.replaceState(history.state, "", location.pathname + addressOf(entry.asked));
}

/**
 * The view in which a query is answered.
 * @param {import("./address.js").View} view
 * @returns {import("./address.js").View}
 */
export const searches = (view) => (view === "compare" ? view : "find");

/**
 * @param {Entry} entry
 * @returns {Promise<unknown>} what went wrong, and was said
 */
async function show(entry) {
  controller.abort();
  controller = new AbortController();
  const { signal } = controller;
  const said = refused;
  refused = null;
  byId("problem").hidden = true;
  busy(true);
  try {
    await draw(entry, signal);
    if (entry.scroll !== null) scrollTo({ top: entry.scroll });
    if (said) fail(said);
  } catch (error) {
    if (!signal.aborted) {
      clear(error instanceof Problem && error.mayPass && again(() => show(entry)));
      fail(said ?? error);
      return error;
    }
  } finally {
    if (!signal.aborted) busy(false);
  }
}

/** Show what the address says: at the start, and when Back or Forward was pressed. */
function showAddress() {
  const key = history.state?.key ?? String(Math.random());
  const known = entries.get(key);
  current = known ?? {
    asked: askedOf(location.search, METHODS.map(({ name }) => name), HAS_PICTURES),
    picture: null,
    answer: null,
    scroll: 0,
  };
  keep(key, current);
  if (!known) {
    const address = location.pathname + addressOf(current.asked);
    history.replaceState({ ...history.state, key }, "", address);
  }
  return show(current);
}

/**
 * Say what went wrong.
 * @param {unknown} error
 */
export function fail(error) {
  busy(false);
  if (!(error instanceof Problem)) console.error(error);
  const problem = byId("problem");
  problem.textContent =
    error instanceof Problem ? error.message : "The page failed; reload it to go on.";
  problem.hidden = false;
  uncover();
  problem.scrollIntoView({ block: "nearest" });
}

/**
 * Take the results away, so that an older answer is not taken for this query's. A focus that was
 * on them stays there.
 * @param {HTMLElement | false} instead is shown in their place
 */
function clear(instead) {
  const results = byId("results");
  const hadFocus = results.contains(document.activeElement);
  results.replaceChildren(...(instead ? [instead] : []));
  if (hadFocus) (instead || results).focus({ preventScroll: true });
}

/** @param {boolean} whether */
function busy(whether) {
  document.body.classList.toggle("busy", whether);
  byId("results").setAttribute("aria-busy", String(whether));
}

/** @param {() => void} retry */
function again(retry) {
  const button = element("button", { type: "button" }, "Try again");
  button.addEventListener("click", retry);
  return button;
}
