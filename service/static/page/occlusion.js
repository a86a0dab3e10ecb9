/** What the service encodes a picture to, and which part of the picture decides the code. */

import { boxOf } from "./crop.js";
import { byId, element } from "./dom.js";
import { ask, pictureOf } from "./service.js";

/** @typedef {import("./navigation.js").Entry} Entry */

const DARKEST = 0.8; // of what decides nothing; understand.css has it for what is not encoded

/**
 * The code of a query's picture, its size, and a picture that the service makes of it. Throws
 * Problem if the query has no picture.
 * @param {Pick<Entry, "asked" | "picture">} entry
 * @param {"tiny" | "preview" | "occlusion"} part
 */
export async function encode({ asked, picture }, part) {
  const body = picture ?? (await pictureOf(asked.id ?? 0));
  const crop = picture && asked.crop;
  const said = new URLSearchParams({ parts: part, ...(crop && { crop }) });
  const type = "application/octet-stream";
  const answer = await ask(`/v1/encode?${said}`, { method: "POST", body, type });
  return { ...answer, crop, url: `data:image/png;base64,${answer.parts[part]}` };
}

/**
 * Draw over a query's picture which part of it decides the code.
 * @param {Entry} entry
 * @param {AbortSignal} signal if it is aborted, nothing is drawn
 * @returns {Promise<string>} a sentence on what is seen
 */
export async function showOcclusion(entry, signal) {
  const { crop, url, changed_bits: changed, ...size } = await encode(entry, "occlusion");
  const image = element("img", { src: url });
  await image.decode();
  if (!signal.aborted) {
    document.querySelector("#query-picture .whole")?.append(drawn(image, squareOf(crop, size)));
    byId("query-picture").scrollIntoView({ block: "nearest" });
  }
  const [least, most] = [Math.min(...changed.flat()), Math.max(...changed.flat())];
  return (
    "The brighter a part, the more bits change when it alone is hidden: " +
    `${least} of 256 in the darkest, ${most} in the brightest.`
  );
}

/** Remove the drawing from the picture. */
export function hideOcclusion() {
  document.querySelector("#query-picture .occlusion")?.remove();
}

/**
 * The square in the middle of a part, which is what is encoded: left, top, width and height in
 * fractions of the picture.
 * @param {string | null} crop
 * @param {{width: number, height: number}} size of the picture, in pixels
 */
export function squareOf(crop, { width, height }) {
  const [left, top, right, bottom] = boxOf(crop);
  const side = Math.min((right - left) * width, (bottom - top) * height);
  const [across, down] = [side / width, side / height];
  return [(left + right - across) / 2, (top + bottom - down) / 2, across, down];
}

/**
 * @param {HTMLImageElement} image in grey levels
 * @param {number[]} square
 */
function drawn(image, square) {
  const { width, height } = image;
  const canvas = element("canvas", { className: "occlusion", width, height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  for (let place = 0; place < pixels.data.length; place += 4) {
    pixels.data[place + 3] = DARKEST * (255 - pixels.data[place]);
    pixels.data.fill(0, place, place + 3);
  }
  context.putImageData(pixels, 0, 0);
  for (const [place, side] of ["left", "top", "width", "height"].entries()) {
    canvas.style.setProperty(side, `${100 * square[place]}%`);
  }
  return canvas;
}
