/** Groups of duplicates, in words and as rows of a table. */

import { pathOf } from "./words.js";

/**
 * @typedef {{same: number, near: number, alike: number} | null} Closeness distances in bits
 *
 * @typedef {import("./tiles.js").Hit & {width: number, height: number, size: number, keep: boolean}} File
 *   of a group, with its distance from the one to keep
 */

/**
 * The word for a distance; null where closeness was not measured.
 * @param {number} distance in bits
 * @param {Closeness} closeness
 */
export function wordOf(distance, closeness) {
  if (!closeness) return null;
  const { same, near, alike } = closeness;
  return distance <= same ? "same" : distance <= near ? "near" : distance <= alike ? "alike" : "far";
}

/**
 * The rows of a group in an exported list.
 * @param {number} group its place in the list, from 1
 * @param {any[]} files
 */
export function rowsOf(group, files) {
  return files.map(({ keep, uri, id, distance, width, height, size }) => {
    return { group, keep: Number(keep), distance, path: pathOf(uri), width, height, size, id };
  });
}
