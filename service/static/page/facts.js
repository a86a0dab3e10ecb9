/** What the gallery is, as the service describes it. */

import { ask } from "./service.js";

/** Whether the gallery keeps pictures of its images, not their codes alone. */
export const HAS_PICTURES = document.documentElement.dataset.pictures === "true";

/** @type {Promise<any> | null} */
let asked = null;

/**
 * The gallery's description, asked for once while the page is open.
 * @param {{renew?: boolean}} [how] renew: ask again
 */
export function gallery({ renew = false } = {}) {
  if (!asked || renew) {
    asked = ask("/v1/gallery");
    asked.catch(() => (asked = null));
  }
  return asked;
}
