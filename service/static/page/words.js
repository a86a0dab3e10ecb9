/** How the page writes what the service answers with. */

const numbers = new Intl.NumberFormat("en");

/** @param {number} value */
export const number = (value) => numbers.format(value);

export const PARTIAL = "A part of the gallery cannot be searched at the moment; pictures may be missing.";

/**
 * A number with its noun: "1 picture", "2,000 pictures".
 * @param {number} count
 * @param {string} one
 * @param {string} [several]
 */
export function counted(count, one, several = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : several}`;
}

/**
 * A uri as people write paths; names that are not UTF-8 stay percent-encoded.
 * @param {string} uri
 */
export function pathOf(uri) {
  if (uri.startsWith("+/")) return `bytes with SHA-256 ${uri.slice(2)}`; // added without a file
  try {
    return decodeURIComponent(uri);
  } catch {
    return uri;
  }
}

/**
 * The last part of a path, for the narrow space below a picture.
 * @param {string} uri
 */
export function nameOf(uri) {
  if (uri.startsWith("+/")) return `bytes ${uri.slice(2, 10)}…`;
  const path = pathOf(uri);
  return path.slice(path.lastIndexOf("/") + 1) || path;
}

/**
 * A size in bytes, as people write it.
 * @param {number} bytes
 */
export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), units.length - 1);
  const value = bytes / 1000 ** power;
  return `${power && value < 10 ? value.toFixed(1) : number(Math.round(value))} ${units[power]}`;
}

const SQUARED = "squared "; // distances of such units are shown by their roots

/**
 * A distance with its unit; empty for a sum of distances, which has none and may be negative.
 * @param {number} distance
 * @param {string} unit of the method, in the plural
 */
export function distanceIn(distance, unit) {
  if (!unit) return "";
  const isSquared = unit.startsWith(SQUARED);
  const several = isSquared ? unit.slice(SQUARED.length) : unit;
  const shown = isSquared ? Math.round(Math.sqrt(distance)) : distance;
  return counted(shown, several.replace(/s$/, ""), several);
}

/**
 * What an answer that is not the service's JSON means: a proxy answered in its place.
 * @param {number} status
 */
export function withoutJson(status) {
  if (status === 413) return "the upload is too large";
  if (status >= 502 && status <= 504) return "the service is not available; try again in a moment";
  return `a proxy answered in place of the service, with status ${status}`;
}

/** @param {string} text */
export const sentence = (text) =>
  `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
