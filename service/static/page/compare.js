/** The same query answered by several methods, side by side. */

import { hasQuery, LEAST_METHODS } from "./address.js";
import { byId, element } from "./dom.js";
import { gallery, METHODS } from "./facts.js";
import { narrowing } from "./filters.js";
import { openLightbox } from "./lightbox.js";
import { codeIsKnown, go, shown as current } from "./navigation.js";
import { examples } from "./picks.js";
import { comparisonOf, hasExamples, hasPixels, others } from "./question.js";
import { ask, askTimed } from "./service.js";
import { awaited, replace } from "./states.js";
import { tile } from "./tiles.js";
import { milliseconds, timing } from "./timing.js";
import { counted, number, PARTIAL, size } from "./words.js";

/** @typedef {import("./navigation.js").Entry} Entry */
/** @typedef {import("./facts.js").Method} Method */
/** @typedef {import("./tiles.js").Hit} Hit */

/** @typedef {{unit: string, latency_ms: number, hits: Hit[]}} Found what a method answered */

/** @typedef {{method: Method, found: Found | null, why: string}} Column why: it is empty */

const K = 20; // hits of each method
const MOST = 3; // columns

const USUAL = METHODS.filter(({ compared }) => compared).slice(0, MOST);

/**
 * @param {Entry} entry
 * @param {AbortSignal} signal
 */
export const showComparison = (entry, signal) =>
  awaited(show(entry, signal), ".chooser, .narrowing", signal);

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
  const facts = await gallery();
  signal.throwIfAborted();
  const chosen = chosenOf(asked);
  const reasons = chosen.map((method) => whyEmpty(method, entry, facts));
  entry.answer ??= await answered(entry, chosen.filter((_, place) => !reasons[place]), facts, signal);
  const { methods, code, stages } = entry.answer;
  const canSay = asked.id === null && hasUse(entry, facts);
  const said = canSay ? labelIn(facts, asked.shows) : null;
  const label = entry.answer.label ?? said;
  codeIsKnown(entry, code);
  const columns = chosen.map((method, place) => ({
    method,
    found: methods.find((/** @type {any} */ one) => one.method === method.name) ?? null,
    why: reasons[place],
  }));
  const agreed = columns.every(({ found }) => found) ? agreement(columns) : "";
  byId("status").textContent = agreed;
  const wasOpen = document.querySelector(".narrowing[open]") !== null; // a chip may have the focus
  replace(
    byId("results"),
    chooser(),
    element(
      "details",
      { className: "narrowing", open: asked.label !== null || asked.folder !== null || wasOpen },
      element("summary", {}, "Narrow the search"),
      narrowing(entry, facts.labels),
    ),
    examples(asked) || element("span"),
    element(
      "div",
      { className: "agreement" },
      agreed && element("p", {}, agreed),
      entry.answer.partial && element("p", { className: "partial" }, PARTIAL),
      canSay && sayer(said, facts.labels),
      Object.keys(stages).length > 0 && timing(stages),
    ),
    key(columns, label),
    element(
      "div",
      { className: "columns" },
      ...columns.map((one) => column(one, columns, entry, label, facts.images)),
    ),
  );
}

/**
 * @param {Entry} entry
 * @param {Method[]} methods that can answer
 * @param {any} facts of the gallery
 * @param {AbortSignal} signal
 */
async function answered(entry, methods, facts, signal) {
  const { asked, picture } = entry;
  if (!methods.length) return { methods: [], label: null, code: asked.code, stages: {} };
  const names = methods.map(({ name }) => name);
  entry.question = comparisonOf({ ...asked, methods: names }, picture, K);
  const { path, ...request } = entry.question;
  const [{ answer, stages }, label] = await Promise.all([
    askTimed(path, { method: "POST", signal, ...request }),
    labelOf(entry, facts, signal),
  ]);
  const found = answer.methods.map((/** @type {any} */ one) => ({
    ...one,
    unit: hasExamples(asked) ? "" : one.unit, // to examples, there are sums of distances
    hits: others(entry, one.hits),
  }));
  return { ...answer, methods: found, stages, label };
}

/**
 * Whether the query's label tells results apart: not if all have it, or are like the examples.
 * @param {Entry} entry
 * @param {any} facts
 */
const hasUse = ({ asked }, { n_labels }) => n_labels > 0 && asked.label === null && !hasExamples(asked);

/**
 * The label of the query, where it is known.
 * @param {Entry} entry
 * @param {any} facts
 * @param {AbortSignal} signal
 * @returns {Promise<string | null>}
 */
async function labelOf(entry, facts, signal) {
  const { id } = entry.asked;
  if (id === null || !hasUse(entry, facts)) return null;
  return (await ask(`/v1/images/${id}`, { signal })).label;
}

/**
 * A label that was said, if the gallery may have it.
 * @param {any} facts
 * @param {string | null} said
 */
function labelIn({ labels, n_labels }, said) {
  const isListed = labels.some((/** @type {any} */ { label }) => label === said);
  return isListed || n_labels > labels.length ? said : null;
}

/**
 * A list of labels, to say what a query shows that is no image of the gallery.
 * @param {string | null} shows
 * @param {{label: string}[]} labels the most frequent of the gallery
 */
function sayer(shows, labels) {
  const names = new Set([...labels.map(({ label }) => label), ...(shows === null ? [] : [shows])]);
  const select = element(
    "select",
    { id: "shows" },
    element("option", { value: "" }, "choose a label to count matches"),
    ...[...names].sort(alphabetically).map((name) => element("option", { value: name }, name)),
  );
  select.value = shows ?? "";
  select.addEventListener("change", () => {
    go({ shows: select.value || null }, { replace: true, stay: true, same: true });
  });
  return element("label", { className: "shows" }, "The query shows ", select);
}

const { compare: alphabetically } = new Intl.Collator("en", { numeric: true });

/** @param {import("./address.js").Asked} asked */
function chosenOf({ methods }) {
  const chosen = METHODS.filter(({ name }) => methods.includes(name));
  return chosen.length ? chosen.slice(0, MOST) : USUAL;
}

/**
 * Why a method cannot answer; empty if it can.
 * @param {Method} method
 * @param {Entry} entry
 * @param {any} facts
 */
function whyEmpty({ name, of_pixels }, { asked, picture }, { methods }) {
  if (!methods.includes(name)) return "This gallery was indexed without pixels.";
  if (!of_pixels || hasPixels(asked, picture)) return "";
  return picture
    ? "Together with examples, the query's code alone is asked; remove the examples to compare pixels."
    : "This is a code without a picture; choose the picture again to compare pixels.";
}

/** Boxes that choose the columns. They stay while an answer is awaited. */
function chooser() {
  const boxes = METHODS.map((method) => {
    const box = element("input", { type: "checkbox", id: `method-${method.name}` });
    box.addEventListener("click", (event) => box.ariaDisabled === "true" && event.preventDefault());
    box.addEventListener("change", () => {
      const chosen = chosenOf(current().asked);
      const now = METHODS.filter((one) => (one === method ? box.checked : chosen.includes(one)));
      const isUsual = now.length === USUAL.length && now.every((one) => USUAL.includes(one));
      go({ methods: isUsual ? [] : now.map(({ name }) => name) }, { replace: true });
      show();
    });
    return { method, box, label: element("label", { className: "check" }, box, method.title) };
  });
  show();
  return element(
    "fieldset",
    { className: "chooser" },
    element("legend", { className: "spoken" }, "Methods that are compared, two or three"),
    ...boxes.map(({ label }) => label),
  );

  function show() {
    const chosen = chosenOf(current().asked);
    for (const { method, box, label } of boxes) {
      box.checked = chosen.includes(method);
      const isFixed = chosen.length === (box.checked ? LEAST_METHODS : MOST);
      box.ariaDisabled = String(isFixed);
      label.title = isFixed ? "Two or three methods are compared" : "";
    }
  }
}

/**
 * @param {Column} shown
 * @param {Column[]} columns
 * @param {Entry} entry
 * @param {string | null} label of the query
 * @param {number} images of the gallery
 */
function column({ method, found, why }, columns, entry, label, images) {
  const bytes = `${counted(method.image_bytes, "byte")} an image, ${size(method.image_bytes * images)} for ${counted(images, "image")}`;
  const head = element(
    "div",
    { className: "head" },
    element("h2", { tabIndex: -1 }, method.title),
    found && label !== null && found.hits.length > 0 && element("p", { className: "precision" }, precision(found.hits, label)),
    element("p", { className: "cost" }, bytes),
    found && element("p", { className: "cost" }, `Found in ${milliseconds(found.latency_ms)}`),
  );
  if (!found) return element("section", { className: "column" }, head, element("p", { className: "why" }, why));
  /** @type {import("./tiles.js").Actions["open"]} */
  const open = (hit, opener) => {
    openLightbox(entry, { hits: found.hits, hit, unit: found.unit, opener });
  };
  const tiles = found.hits.map((hit) => {
    const made = tile(hit, found.unit, { open });
    const others = columns.filter((one) => one.found !== found && holds(one, hit.id));
    made.classList.toggle("shared", others.length > 0);
    made.append(...others.map((one) => element("span", { className: "spoken" }, `Also found ${inSentence(one)}`)));
    if (label !== null && hit.label === label) {
      made.classList.add("match");
      made.append(element("span", { className: "tick", role: "img", "aria-label": "Same label as the query" }, "✓"));
    }
    return made;
  });
  return element("section", { className: "column" }, head, element("ol", { className: "tiles" }, ...tiles));
}

/**
 * What the marks on the pictures mean, of those that there are.
 * @param {Column[]} columns
 * @param {string | null} label of the query
 */
function key(columns, label) {
  const answered = columns.filter(({ found }) => found).length;
  const shared = answered > LEAST_METHODS ? "found by more than one" : "found by both";
  return element(
    "ul",
    { className: "marks", "aria-label": "What the marks mean" },
    answered >= LEAST_METHODS && element("li", {}, element("span", { className: "outline" }), shared),
    label !== null && element("li", {}, element("span", { className: "tick" }, "✓"), `same label as the query, ${label}`),
  );
}

/**
 * @param {Hit[]} hits
 * @param {string} label
 */
function precision(hits, label) {
  const right = hits.filter((hit) => hit.label === label).length;
  return `precision@${hits.length}: ${(right / hits.length).toFixed(2)}`;
}

/**
 * How many pictures the columns share.
 * @param {Column[]} columns
 */
function agreement(columns) {
  const most = Math.max(...columns.map(({ found }) => found?.hits.length ?? 0));
  if (columns.length <= LEAST_METHODS) return `They agree on ${shared(columns)} of ${most}.`;
  const [first, second, third] = columns;
  const pairs = [[first, second], [first, third], [second, third]];
  const said = pairs.map((pair) => `${pair.map(inSentence).join(" and ")} on ${shared(pair)}`);
  return `All three agree on ${shared(columns)} of ${most}; ${said.join(", ")}.`;
}

/** @param {Column[]} columns */
function shared([first, ...others]) {
  return number(first.found?.hits.filter(({ id }) => others.every((one) => holds(one, id))).length ?? 0);
}

/**
 * @param {Column} column
 * @param {number} id
 */
const holds = ({ found }, id) => found?.hits.some((hit) => hit.id === id) ?? false;

/** @param {Column} column */
const inSentence = ({ method: { title } }) => title.slice(0, 1).toLowerCase() + title.slice(1);
