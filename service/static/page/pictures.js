/** Pictures that people give: read from files, and made smaller before they are sent. */

import { Problem } from "./service.js";
import { size } from "./words.js";

const LARGEST_BYTES = 250_000_000; // of a picture that the browser makes smaller; a film is not read
const LARGE_BYTES = 1_000_000; // smaller files are sent as they are, since their code is then exact
const LARGE_SIDE = 1024; // of what is sent instead
const LEAST_SIDE = 256; // of a panorama; the code is of 32×32 pixels, and a crop may be a quarter

/**
 * The picture to send for a file: a large one is made smaller, if the browser can show it. Throws
 * Problem if the file cannot be read.
 * @param {Blob} file
 * @returns {Promise<Blob>} that stays as it is, whatever happens to the file
 */
export async function prepared(file) {
  if (file.size > LARGEST_BYTES) throw new Problem(`the file is larger than ${size(LARGEST_BYTES)}`);
  const read = await copyOf(file);
  if (read.size === 0) throw new Problem("the file is empty");
  if (read.size < LARGE_BYTES) return read;
  let bitmap;
  try {
    bitmap = await createImageBitmap(read);
  } catch {
    return read; // such as HEIC, which the service reads
  }
  const { width, height } = bitmap;
  const scale = Math.max(LARGE_SIDE / Math.max(width, height), LEAST_SIDE / Math.min(width, height));
  const smaller = scale < 1 && drawn(bitmap, Math.round(width * scale), Math.round(height * scale));
  bitmap.close();
  return smaller ? smaller.convertToBlob({ type: "image/jpeg", quality: 0.95 }) : read;
}

/**
 * @param {ImageBitmap} bitmap
 * @param {number} width
 * @param {number} height
 */
function drawn(bitmap, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (!context) return null;
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // as the service shows what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  return canvas;
}

/** @param {Blob} file */
async function copyOf(file) {
  try {
    return new Blob([await file.arrayBuffer()], { type: file.type });
  } catch {
    throw new Problem("the file cannot be read; it may be a folder, or have changed since it was chosen");
  }
}

/**
 * The picture of a drop or a paste. Throws Problem if it holds something else, or several.
 * @param {DataTransfer} given
 * @returns {File}
 */
export function fileOf(given) {
  const [file, ...others] = given.files;
  if (!file) throw new Problem("only a picture's file can be dropped; save the picture first");
  if (others.length) throw new Problem("one picture is searched for at a time; drop one alone");
  return file;
}
