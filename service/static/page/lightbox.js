/** A picture large, beside the query. */

/**
 * @param {import("./navigation.js").Entry} entry
 * @param {import("./tiles.js").Hit[]} hits
 * @param {import("./tiles.js").Hit} hit
 */
export function openLightbox(entry, hits, hit) {}
