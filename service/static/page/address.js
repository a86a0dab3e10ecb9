/** What the page shows, and the address that says so. */

/**
 * @typedef {"find" | "compare" | "duplicates" | "gallery"} View
 *
 * @typedef {object} Asked
 * @property {View} view
 * @property {number | null} id of the gallery's image that is the query
 * @property {string | null} code the query's code, 64 hexadecimal digits
 * @property {string | null} crop left,top,right,bottom of the query, in fractions
 * @property {string | null} label that images must have
 * @property {string | null} folder beginning of the images' uris
 * @property {number | null} radius greatest distance in bits
 * @property {string[]} methods that are compared; empty for the service's own choice
 * @property {number[]} like ids of examples
 * @property {number[]} unlike ids of counterexamples
 * @property {boolean} once whether near-duplicates are shown once
 */

const VIEWS = ["find", "compare", "duplicates", "gallery"];

/** @type {Readonly<Asked>} */
export const NOTHING = Object.freeze({
  view: "find",
  id: null,
  code: null,
  crop: null,
  label: null,
  folder: null,
  radius: null,
  methods: [],
  like: [],
  unlike: [],
  once: false,
});

/**
 * What an address's query string asks for; what it says wrongly is left out.
 * @param {string} query such as ?id=7&label=cat
 * @returns {Asked}
 */
export function askedOf(query) {
  const given = new URLSearchParams(query);
  const view = given.get("view") ?? "find";
  return {
    view: /** @type {View} */ (VIEWS.includes(view) ? view : "find"),
    id: whole(given.get("id")),
    code: matching(given.get("code"), /^[0-9a-f]{64}$/),
    crop: matching(given.get("crop"), /^[\d.]+(,[\d.]+){3}$/),
    label: given.get("label"),
    folder: given.get("folder"),
    radius: whole(given.get("radius")),
    methods: given.getAll("method"),
    like: wholes(given.get("like")),
    unlike: wholes(given.get("unlike")),
    once: given.has("once"),
  };
}

/**
 * The query string that asks for the same again; empty for nothing.
 * @param {Asked} asked
 */
export function addressOf(asked) {
  const said = new URLSearchParams();
  if (asked.view !== "find") said.set("view", asked.view);
  for (const name of /** @type {const} */ (["id", "code", "crop", "label", "folder", "radius"])) {
    const value = asked[name];
    if (value !== null) said.set(name, String(value));
  }
  for (const method of asked.methods) said.append("method", method);
  for (const name of /** @type {const} */ (["like", "unlike"])) {
    if (asked[name].length) said.set(name, asked[name].join(","));
  }
  if (asked.once) said.set("once", "");
  const text = said.toString().replace(/once=(?=&|$)/, "once").replaceAll("%2C", ",");
  return text ? `?${text}` : "";
}

/**
 * Whether anything is searched for.
 * @param {Asked} asked
 */
export function hasQuery(asked) {
  return asked.id !== null || asked.code !== null || asked.like.length + asked.unlike.length > 0;
}

/** @param {string | null} text */
function whole(text) {
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

/** @param {string | null} text */
function wholes(text) {
  return (text ?? "").split(",").map(whole).filter((value) => value !== null);
}

/**
 * @param {string | null} text
 * @param {RegExp} form
 */
function matching(text, form) {
  return text !== null && form.test(text) ? text : null;
}
