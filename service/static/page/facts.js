/** What the gallery is, as the service describes it. */

import { ask } from "./service.js";

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
