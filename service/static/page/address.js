/** What the page shows, and the address that says so. */

import { BITS } from "./bits.js";
import { boxOf, textOf } from "./crop.js";

/**
 * @typedef {"find" | "compare" | "duplicates" | "gallery"} View
 *
 * @typedef {object} Asked
 * @property {View} view
 * @property {number | null} id of the gallery's image that is the query
 * @property {string | null} code the query's code, 64 hexadecimal digits; beside an id, that of the
 *   part that is searched for
 * @property {string | null} crop left,top,right,bottom of the query, in fractions
 * @property {string | null} shows label of a query that is no image of the gallery
 * @property {string | null} label that images must have
 * @property {string | null} folder beginning of the images' uris
 * @property {number | null} radius greatest distance in bits
 * @property {string[]} methods that are compared; empty for the service's own choice
 * @property {number[]} like ids of examples
 * @property {number[]} unlike ids of counterexamples
 * @property {boolean} once whether near-duplicates are shown once
 */

const VIEWS = ["find", "compare", "duplicates", "gallery"];

export const LEAST_METHODS = 2; // that are compared

/** @type {Readonly<Asked>} */
export const NOTHING = Object.freeze({
  view: "find",
  id: null,
  code: null,
  crop: null,
  shows: null,
  label: null,
  folder: null,
  radius: null,
  methods: [],
  like: [],
  unlike: [],
  once: false,
});

/**
 * What an address's query string asks for; what it says wrongly, or what means nothing beside the
 * rest, is left out.
 * @param {string} query such as ?id=7&label=cat
 * @param {string[]} methods that the service has
 * @param {boolean} hasPictures whether the gallery has any, of which a part can be searched for
 * @returns {Asked}
 */
export function askedOf(query, methods, hasPictures) {
  const given = new URLSearchParams(query);
  const view = given.get("view") ?? "find";
  const named = methods.filter((method) => given.getAll("method").includes(method));
  const like = wholes(given.get("like"));
  const radius = whole(given.get("radius"));
  return meant({
    view: /** @type {View} */ (VIEWS.includes(view) ? view : "find"),
    id: whole(given.get("id")),
    code: /^[0-9a-f]{64}$/i.exec(given.get("code") ?? "")?.[0].toLowerCase() ?? null,
    crop: hasPictures ? textOf(boxOf(given.get("crop"))) : null,
    shows: given.get("shows") || null,
    label: given.get("label") || null,
    folder: given.get("folder") || null,
    radius: radius !== null && radius <= BITS ? radius : null,
    methods: named.length < LEAST_METHODS ? [] : named,
    like,
    unlike: wholes(given.get("unlike")).filter((id) => !like.includes(id)),
    once: given.has("once"),
  });
}

/**
 * The same without what means nothing beside the rest.
 * @param {Asked} asked
 * @returns {Asked}
 */
function meant(asked) {
  const { view, id, code, label } = asked;
  const hasExamples = asked.like.length + asked.unlike.length > 0;
  // A code is that of the part already, and examples are compared with whole pictures.
  const hasPart = id !== null && !hasExamples;
  // What an image of the gallery shows is known; with a label or examples, it counts no matches.
  const canShow = id === null && code !== null && label === null && !hasExamples;
  // Duplicates have a radius of their own, and sums of distances to examples have none.
  const hasRadius = view === "duplicates" || (view !== "gallery" && !hasExamples && hasQuery(asked));
  return {
    ...asked,
    code: id === null ? code : null,
    crop: hasPart ? asked.crop : null,
    shows: canShow ? asked.shows : null,
    radius: hasRadius ? asked.radius : null,
  };
}

const TEXTS = /** @type {const} */ (["id", "code", "crop", "shows", "label", "folder", "radius"]);

/**
 * The query string that asks for the same again; empty for nothing.
 * @param {Asked} shown
 */
export function addressOf(shown) {
  const asked = meant(shown);
  const said = new URLSearchParams();
  if (asked.view !== "find") said.set("view", asked.view);
  for (const name of TEXTS) {
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

/**
 * Different whole numbers.
 * @param {string | null} text
 */
function wholes(text) {
  const values = (text ?? "").split(",").map(whole).filter((value) => value !== null);
  return [...new Set(values)];
}
