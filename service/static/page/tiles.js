/** Pictures that were found, as tiles that never change their size. */

import { element } from "./dom.js";
import { HAS_PICTURES } from "./facts.js";
import { tools } from "./picks.js";
import { reconstruction } from "./service.js";
import { distanceIn, nameOf, pathOf } from "./words.js";

const LATE_MS = 200; // after which a thumbnail that is seen is late

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting || !(target instanceof HTMLImageElement)) continue;
    seen.unobserve(target);
    setTimeout(() => {
      const url = reconstruction(target.dataset.code ?? "");
      if (!target.complete) target.style.backgroundImage = `url("${url}")`;
    }, LATE_MS);
  }
});

/**
 * @typedef {object} Hit an image that was found, as the service describes it
 * @property {number} id
 * @property {number} distance
 * @property {"same" | "near" | "alike" | "far" | null} closeness
 * @property {string | null} label
 * @property {string} uri
 * @property {boolean} missing
 * @property {string} thumbnail
 * @property {string | null} code
 */

/**
 * What happens to a tile's picture.
 * @typedef {object} Actions
 * @property {(hit: Hit, opener: HTMLElement) => void} open
 */

/**
 * @param {Hit} hit
 * @param {string} unit of its distance; empty for a sum of distances, which is not shown
 * @param {Actions} actions
 * @returns {HTMLLIElement}
 */
export function tile(hit, unit, actions) {
  const distance = distanceIn(hit.distance, unit);
  const name = nameOf(hit.uri);
  const said = [name, hit.label, hit.closeness, distance, hit.missing && "file gone"];
  const opener = element("button", {
    type: "button",
    className: "picture",
    "aria-label": said.filter(Boolean).join(", "),
    title: pathOf(hit.uri),
  });
  opener.append(picture(hit));
  opener.addEventListener("click", () => actions.open(hit, opener));
  return element(
    "li",
    { className: "tile", data: { id: String(hit.id) } },
    opener,
    tools(hit, unit),
    element("p", { className: "name", title: pathOf(hit.uri) }, name),
    element(
      "p",
      { className: "said" },
      hit.closeness && element("span", { className: `word ${hit.closeness}` }, hit.closeness),
      distance && element("span", { className: "distance" }, distance),
      hit.label && element("span", { className: "label" }, hit.label),
      hit.missing && element("span", { className: "gone" }, "file gone"),
    ),
    element(
      "a",
      { className: "from", href: `?id=${hit.id}`, data: { id: String(hit.id) } },
      "Search from this",
    ),
  );
}

/**
 * An image's thumbnail; where it is late, and where the gallery keeps none, what its code decodes
 * to.
 * @param {{thumbnail: string, code: string | null}} image
 * @returns {HTMLImageElement}
 */
export function picture({ thumbnail, code }) {
  const image = element("img", { alt: "", loading: "lazy", decoding: "async", width: 128, height: 128 });
  if (code && !HAS_PICTURES) {
    image.src = reconstruction(code);
    return image;
  }
  if (code) {
    image.dataset.code = code;
    seen.observe(image);
    image.addEventListener("error", () => (image.src = reconstruction(code)), { once: true });
  }
  image.src = thumbnail;
  return image;
}
