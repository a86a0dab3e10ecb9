/** What a code knows: the pixels that it was made of, its bits, and what they decode to. */

import { BITS, differing, flipped } from "./bits.js";
import { differenceIn, squares } from "./code.js";
import { byId, element } from "./dom.js";
import { gallery, HAS_PICTURES } from "./facts.js";
import { go } from "./navigation.js";
import { encode, hideOcclusion, showOcclusion } from "./occlusion.js";
import { ask, Problem, reconstruction } from "./service.js";
import { counted } from "./words.js";

/**
 * @typedef {import("./navigation.js").Entry} Entry
 *
 * @typedef {object} Known what is known of a query
 * @property {string} code
 * @property {string | null} tiny address of its 32×32 pixels, or of those of its origin
 * @property {(Known & {entry: Entry}) | null} origin the query whose bits were flipped
 */

/** @type {WeakMap<Entry, Promise<Known>>} */
const known = new WeakMap();
/** @type {Map<string, NonNullable<Known["origin"]>>} by the codes that flips led to */
const origins = new Map();
/** @type {Entry | null} */
let latest = null; // that was asked for
/** @type {Entry} */
let shown;
/** @type {ReturnType<typeof made>} */
let panel; // stays while queries change, so that the focus stays on its square
/** @type {ReturnType<typeof squares> | null} */
let grid = null; // until the gallery says how bits are divided
let occlusion = new AbortController();

/**
 * Show what the code of a query knows, below the query.
 * @param {Entry} entry
 */
export function understand(entry) {
  shown = entry;
  panel ??= made();
  const tools = byId("query-tools");
  if (panel.root.parentElement !== tools) tools.append(panel.root);
  const { id, code } = entry.asked;
  panel.parts.hidden = !hasPicture(entry);
  panel.root.hidden = panel.parts.hidden && id === null && code === null;
  endOcclusion();
  refresh();
}

/** Hide it: the query that is shown has no code. */
export function hideUnderstanding() {
  panel.root.hidden = true;
}

/** Draw the query that is shown, if anyone looks. */
async function refresh() {
  const entry = shown;
  if (!panel.root.open || panel.root.hidden) return;
  panel.problem.hidden = true;
  panel.root.ariaBusy = "true"; // what it shows may be another query's
  panel.root.classList.remove("failed");
  try {
    const { picture_bits: pictureBits } = await gallery();
    if (!grid) {
      grid = squares("The code of the query", pictureBits, flip);
      panel.lead.textContent = sentences(pictureBits);
      panel.root.append(grid.root);
    }
    const { code, tiny, origin } = await knownOf(entry);
    if (entry !== shown) return;
    const marked = differing(origin?.code ?? code, code);
    grid.show(code, marked);
    panel.decoded.src = reconstruction(code);
    panel.tiny.hidden = tiny === null;
    if (tiny !== null) panel.pixels.src = tiny;
    panel.name.textContent = origin ? "What you came from" : "What the model sees";
    panel.steps.textContent = origin
      ? `${counted(marked.size, "bit")} flipped.`
      : "Press a square to flip its bit.";
    panel.back.hidden = !origin;
    panel.root.ariaBusy = "false";
  } catch (error) {
    if (entry !== shown) return;
    panel.root.classList.add("failed");
    panel.root.ariaBusy = "false";
    fail(error);
  }
}

/** @param {Entry} entry */
const hasPicture = ({ asked, picture }) =>
  picture !== null || (asked.id !== null && HAS_PICTURES);

/** @param {Entry} entry */
function knownOf(entry) {
  const promise = known.get(entry) ?? knownSince(entry) ?? learnt(entry);
  promise.catch(() => known.delete(entry));
  known.set(entry, promise);
  latest = entry;
  return promise;
}

/**
 * What is known of the same query with other filters.
 * @param {Entry} entry
 */
function knownSince(entry) {
  if (!latest || queryOf(latest) !== queryOf(entry) || latest.picture !== entry.picture) return;
  return known.get(latest);
}

/** @param {Entry} entry */
const queryOf = ({ asked: { id, code, crop }, picture }) => JSON.stringify([id, crop, picture ? "" : code]);

/**
 * @param {Entry} entry
 * @returns {Promise<Known>}
 */
async function learnt(entry) {
  const { asked, picture } = entry;
  if (!picture && asked.id === null) {
    const origin = origins.get(asked.code ?? "") ?? null;
    return { code: asked.code ?? "", tiny: origin && origin.tiny, origin };
  }
  if (picture) {
    const { code, url } = await encode(entry, "tiny");
    return { code, tiny: url, origin: null };
  }
  const unknown = { url: null }; // if no picture is kept, or the gallery has earlier image rules
  const [{ code }, { url }] = await Promise.all([
    ask(`/v1/images/${asked.id}`),
    HAS_PICTURES ? encode(entry, "tiny").catch(() => unknown) : unknown,
  ]);
  return { code, tiny: url, origin: null };
}

/**
 * Flip a bit of the code that is shown, and search for that code.
 * @param {number} bit
 */
async function flip(bit) {
  const entry = shown;
  const now = await knownOf(entry).catch(fail);
  if (!now || entry !== shown) return;
  const code = flipped(now.code, bit);
  origins.set(code, now.origin ?? { ...now, entry });
  const place = top();
  // The first flip leaves the query in the browser's history, so that Back returns to it.
  const how = { picture: null, replace: now.origin !== null, stay: true };
  go({ code, id: null, crop: null }, how);
  byId("query").scrollTop += top() - place; // the picture above may have another height now
  scrollBy(0, top() - place);
}

const top = () => grid?.root.getBoundingClientRect().top ?? 0;

async function goBack() {
  const { origin } = (await knownOf(shown).catch(fail)) ?? {};
  if (!origin) return;
  const { id, code, crop } = origin.entry.asked;
  go({ id, code, crop }, { picture: origin.entry.picture, stay: true });
}

async function toggleOcclusion() {
  if (panel.part.ariaPressed === "true") return endOcclusion();
  const { signal } = (occlusion = new AbortController());
  panel.part.ariaPressed = "true";
  panel.said.textContent = "Hiding one part after another…";
  try {
    const sentence = await showOcclusion(shown, signal);
    if (!signal.aborted) panel.said.textContent = sentence;
  } catch (error) {
    if (signal.aborted) return;
    endOcclusion();
    fail(error);
  }
}

function endOcclusion() {
  occlusion.abort();
  hideOcclusion();
  panel.part.ariaPressed = "false";
  panel.said.textContent = "";
}

/** @param {unknown} error */
function fail(error) {
  if (!(error instanceof Problem)) console.error(error);
  panel.problem.textContent =
    error instanceof Problem ? error.message : "This part of the page failed; reload it to go on.";
  panel.problem.hidden = false;
}

function made() {
  const [lead, name] = [element("p", { className: "lead" }), element("figcaption")];
  const [pixels, decoded] = ["The query in 32×32 pixels", "What the code decodes to"].map(small);
  const tiny = element("figure", {}, pixels, name);
  const read = element("figure", {}, decoded, element("figcaption", {}, "The code read back"));
  const [steps, said] = [element("span", { role: "status" }), element("span", { role: "status" })];
  const back = element("button", { type: "button" }, "Return to the query");
  const part = element("button", { type: "button" }, "Show which part decides the bits");
  const parts = element("p", { className: "parts" }, part, said);
  const problem = element("p", { className: "gone", role: "alert", hidden: true });
  const root = element(
    "details",
    { className: "understand" },
    element("summary", {}, "What the code knows"),
    lead,
    parts,
    problem,
    element("div", { className: "seen" }, tiny, read),
    element("p", { className: "walk" }, steps, back),
  );
  root.addEventListener("toggle", refresh);
  back.addEventListener("click", goBack);
  part.addEventListener("click", toggleOcclusion);
  return { root, lead, tiny, pixels, name, decoded, steps, back, parts, part, said, problem };
}

/** @param {string} alt */
const small = (alt) => element("img", { alt, width: 32, height: 32 });

/**
 * What one is looking at, for people who have never heard of hashing.
 * @param {number | null} pictureBits
 */
function sentences(pictureBits) {
  const about =
    pictureBits === null ? "" : `: ${pictureBits} about how it looks, ${BITS - pictureBits} about what it shows`;
  return (
    "The picture is shrunk to 32×32 pixels, and a trained model answers 256 questions about it " +
    `with yes or no${about}. Each square is one answer, full for yes; together they are the ` +
    "picture’s code, and a search compares nothing else: the fewer squares differ, the more " +
    "alike are two pictures. From the code alone, the model can draw a rough picture again, " +
    "which shows what the code has kept."
  );
}

/**
 * Show which bits of a picture's code differ from another's, such as the query's, and what both
 * decode to.
 * @param {HTMLElement} section that is filled; it becomes empty where a code is not known
 * @param {string | null | undefined} other its code
 * @param {{code: string | null}} picture
 * @param {string} [name] of the other
 */
export async function describeBits(section, other, { code }, name = "The query") {
  section.replaceChildren();
  if (!other || !code) return;
  const { picture_bits: pictureBits } = await gallery();
  const differ = differing(other, code);
  const sides = [[name, other], ["This picture", code]].map(([title, one]) => {
    const drawing = squares(`${title}: its code`, pictureBits, null);
    drawing.show(one, differ);
    const decoded = small("What its code decodes to");
    decoded.src = reconstruction(one);
    return element("figure", {}, element("figcaption", {}, title), decoded, drawing.root);
  });
  section.replaceChildren(
    element("p", {}, differenceIn(differ, pictureBits), " A dot marks each of them."),
    element("div", { className: "compared" }, ...sides),
  );
}
