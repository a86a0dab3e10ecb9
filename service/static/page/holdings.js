/** What a gallery holds: its folders, and the memory that it takes. */

import { counted, pathOf, size } from "./words.js";

/** @typedef {{name: Node | string, amount: string, share: number}} Bar share: of the largest */

const CODE_BYTES = 32;
const PIXEL_BYTES = 3072;

/**
 * The folders that a folder lies in, and itself last.
 * @param {string} folder a uri
 * @returns {{folder: string, name: string}[]}
 */
export function crumbsOf(folder) {
  return [...folder.matchAll(/[^!#/]+/g)].map((part) => ({
    folder: folder.slice(0, part.index + part[0].length),
    name: folderName(pathOf(part[0])),
  }));
}

/** @param {string} name as the service writes it */
export const folderName = (name) => (name === "+" ? "added without a file" : name);

/**
 * The memory that the gallery takes in each of its forms.
 * @param {any} described
 * @param {boolean} keepsPixels
 * @returns {Bar[]}
 */
export function memory({ images, indexes }, keepsPixels) {
  const forms = [{ name: "Codes", bytes: CODE_BYTES }];
  for (const { kind, loaded, image_bytes } of indexes) {
    if (loaded) forms.push({ name: `Index ${kind}, beside the codes`, bytes: image_bytes });
  }
  if (keepsPixels) forms.push({ name: "Pixels", bytes: PIXEL_BYTES });
  const most = Math.max(...forms.map(({ bytes }) => bytes));
  return forms.map(({ name, bytes }) => ({
    name: `${name}: ${counted(Math.round(bytes * 10) / 10, "byte")} a picture`,
    amount: size(bytes * images),
    share: bytes / most,
  }));
}
