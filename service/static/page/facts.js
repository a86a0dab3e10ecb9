/** What the gallery is, as the service describes it. */

import { ask } from "./service.js";

/**
 * @typedef {object} Method a way to compare images
 * @property {string} name
 * @property {string} title
 * @property {number} image_bytes that are compared of each image
 * @property {boolean} of_pixels whether it compares pixels, which gallery and query must have
 * @property {boolean} compared unless others are chosen
 */

/** @type {Method[]} */
export const METHODS = JSON.parse(document.documentElement.dataset.methods ?? "[]");

/** Whether the gallery keeps pictures of its images, not their codes alone. */
export const HAS_PICTURES = document.documentElement.dataset.pictures === "true";

/** @type {Promise<any> | null} */
let asked = null; // last
/** @type {Promise<any> | null} */
let known = null; // last that was answered; what is shown already needs no other

/**
 * The gallery's description, asked for once while the page is open.
 * @param {{renew?: boolean}} [how] renew: ask again
 */
export function gallery({ renew = false } = {}) {
  const former = known ?? asked;
  if (former && !renew) return former;
  const now = ask("/v1/gallery");
  asked = now;
  now.then(
    () => (known = now),
    () => {
      if (asked === now) asked = null;
    },
  );
  return now;
}
