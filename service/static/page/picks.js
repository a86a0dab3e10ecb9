/** Pictures that are picked: as examples of a search, or selected to be exported. */

import { csv, save } from "./csv.js";
import { byId, element } from "./dom.js";
import { go, searches, shown } from "./navigation.js";
import { thumbnail } from "./service.js";
import { nameOf, number, pathOf } from "./words.js";

/** @typedef {import("./tiles.js").Hit} Hit */
/** @typedef {import("./navigation.js").Entry} Entry */

/** @type {["like" | "unlike", string, string, string][]} kind, sign, words and key */
const SIGNS = [
  ["like", "+", "More like", "M"],
  ["unlike", "−", "Less like", "L"],
];
const SELECTS = "S"; // the key

/** @typedef {{hit: Hit, unit: string}} Picked unit: of its distance; empty if it has none */

/** @type {Map<number, Picked>} */
const selected = new Map();
/** @type {number | Blob | string | null} */
let ofQuery = null; // in whose results they were selected
let ofPart = ""; // and examples, to which their distances are

/**
 * The tools of a tile.
 * @param {Hit} hit
 * @param {string} unit
 */
export function tools(hit, unit) {
  const name = nameOf(hit.uri);
  const signs = SIGNS.map(([kind, sign, words]) =>
    picker(hit, kind, { "aria-label": `${words} ${name}`, title: `${words} this` }, sign),
  );
  const box = selector(hit, unit, { "aria-label": `Select ${name}` });
  return element("div", { className: "tools" }, ...signs, element("label", { title: "Select" }, box));
}

/**
 * The same in words, each with its key.
 * @param {Hit} hit
 * @param {string} unit
 */
export function toolsInWords(hit, unit) {
  const signs = SIGNS.map(([kind, sign, words, key]) =>
    picker(hit, kind, { "aria-keyshortcuts": key }, `${sign} ${words} this`, keyed(key)),
  );
  const box = selector(hit, unit, { "aria-keyshortcuts": SELECTS });
  const said = element("span", { className: "spoken", role: "status" });
  box.addEventListener("change", () => (said.textContent = count.value));
  return [...signs, element("label", { className: "button" }, box, "Select", keyed(SELECTS)), said];
}

/** @param {string} key */
const keyed = (key) => element("kbd", { "aria-hidden": "true" }, key);

/**
 * @param {Hit} hit
 * @param {"like" | "unlike"} kind
 * @param {Record<string, string>} properties
 * @param {...(Node | string)} children
 */
function picker(hit, kind, properties, ...children) {
  const pressed = String(shown().asked[kind].includes(hit.id));
  const button = element("button", { type: "button", "aria-pressed": pressed, ...properties }, ...children);
  button.addEventListener("click", () => pick(hit.id, kind));
  return button;
}

/**
 * @param {Hit} hit
 * @param {string} unit
 * @param {Record<string, string>} properties
 */
function selector(hit, unit, properties) {
  const checked = selected.has(hit.id);
  if (selected.get(hit.id)?.unit === "") selected.set(hit.id, { hit, unit });
  const box = element("input", { type: "checkbox", checked, ...properties });
  box.addEventListener("change", () => {
    if (box.checked) selected.set(hit.id, { hit, unit });
    else selected.delete(hit.id);
    showBar();
  });
  return box;
}

/**
 * Make an image an example, or take it away.
 * @param {number} id
 * @param {"like" | "unlike"} [kind]
 */
function pick(id, kind) {
  const { asked, picture } = shown();
  const isOfPicture = picture !== null || asked.crop !== null;
  if (isOfPicture && asked.code === null) return; // until it is known what they stand beside
  const changes = Object.fromEntries(
    SIGNS.map(([one]) => {
      const others = asked[one].filter((other) => other !== id);
      return [one, one === kind && !asked[one].includes(id) ? [...others, id] : others];
    }),
  );
  // A part of an image of the gallery becomes a query of its own, of which the code is known. To the
  // sums that examples are ranked by, there is no greatest distance.
  const part = asked.crop !== null && { id: null };
  if (part) ofQuery = picture;
  go({ ...changes, ...part, radius: null, view: searches(asked.view) });
  byId("results").focus();
}

/**
 * The examples in force, each to be removed.
 * @param {import("./address.js").Asked} asked
 */
export function examples(asked) {
  const chips = SIGNS.flatMap(([kind, sign, words]) =>
    asked[kind].map((id) => {
      const image = element("img", { src: thumbnail(id), alt: "", width: 32, height: 32 });
      image.addEventListener("error", () => image.replaceWith(`image ${id}`), { once: true });
      const chip = element(
        "button",
        { type: "button", className: "chip example", "aria-label": `${words} image ${id}: remove`, title: "Remove this example" },
        sign,
        image,
        "✕",
      );
      chip.addEventListener("click", () => pick(id));
      return chip;
    }),
  );
  return chips.length > 0 && element("p", { className: "chips picked", role: "group", "aria-label": "Examples" }, "Ranked by examples: ", ...chips);
}

/**
 * Forget what was selected of another query's results, and what is no distance to another part of
 * the query, or with other examples.
 * @param {Entry} entry
 */
export function keepSelection({ asked: { id, code, crop, like, unlike }, picture }) {
  const query = id ?? picture ?? code;
  const part = JSON.stringify([crop, like, unlike]);
  if (query !== ofQuery) selected.clear();
  if (part !== ofPart) {
    for (const [one, { hit }] of selected) selected.set(one, { hit: { ...hit, closeness: null }, unit: "" });
  }
  [ofQuery, ofPart] = [query, part];
  showBar();
}

const count = element("output", {});
const bar = element(
  "div",
  { className: "selection", role: "region", "aria-label": "Selection", hidden: true },
  count,
  action("Export CSV", () => save("pictures.csv", csv(rows()))),
  action("Export JSON", () => save("pictures.json", `${JSON.stringify(rows(), null, 2)}\n`, "application/json")),
  action("Clear", () => {
    selected.clear();
    showBar();
    byId("results").focus();
  }),
);

function showBar() {
  if (!bar.isConnected) byId("answer").after(bar);
  const { view } = shown().asked;
  bar.hidden = !selected.size || searches(view) !== view;
  count.value = `${number(selected.size)} selected`;
  for (const tile of document.querySelectorAll(".tile")) {
    const box = tile.querySelector(".tools input");
    const { id } = /** @type {HTMLElement} */ (tile).dataset;
    if (box instanceof HTMLInputElement) box.checked = selected.has(Number(id));
  }
}

/**
 * @param {string} label
 * @param {() => void} press
 */
function action(label, press) {
  const button = element("button", { type: "button" }, label);
  button.addEventListener("click", press);
  return button;
}

/** What is exported of the selected pictures. */
function rows() {
  return [...selected.values()].map(({ hit: { id, uri, label, distance, closeness }, unit }) => ({
    id,
    path: pathOf(uri),
    uri,
    label,
    distance: unit ? distance : null,
    unit: unit || null,
    closeness,
  }));
}
