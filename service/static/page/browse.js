/** The gallery's own pictures, those with a label or in a folder, in the order of their ids. */

import { addressOf } from "./address.js";
import { element } from "./dom.js";
import { openLightbox } from "./lightbox.js";
import { go } from "./navigation.js";
import { ask } from "./service.js";
import { empty, skeleton, trouble, whenSeen } from "./states.js";
import { picture } from "./tiles.js";
import { nameOf, pathOf } from "./words.js";

/** @typedef {import("./address.js").Asked} Asked */
/** @typedef {import("./tiles.js").Hit} Hit */

const PAGE = 60; // images of a request

/**
 * A link to something else that the page shows.
 * @param {Asked} asked now
 * @param {Partial<Asked>} changes
 * @param {...(Node | string)} children
 */
export function linkTo(asked, changes, ...children) {
  const href = addressOf({ ...asked, ...changes }) || "?";
  const link = element("a", { href }, ...children);
  link.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return; // opens another tab
    event.preventDefault();
    go(changes);
  });
  return link;
}

/**
 * A picture as a button that shows it large.
 * @param {Hit} image
 * @param {(opener: HTMLElement) => void} open
 */
export function opener(image, open) {
  const name = { title: pathOf(image.uri), "aria-label": nameOf(image.uri) };
  const button = element("button", { type: "button", className: "picture", ...name }, picture(image));
  button.addEventListener("click", () => open(button));
  return button;
}

/**
 * @param {Hit} image
 * @param {(opener: HTMLElement) => void} open
 */
function tile(image, open) {
  const { id, uri, label, missing } = image;
  return element(
    "li",
    { className: "tile", data: { id: String(id) } },
    opener(image, open),
    element("p", { className: "name", title: pathOf(uri) }, nameOf(uri)),
    element(
      "p",
      { className: "said" },
      label && element("span", { className: "label" }, label),
      missing && element("span", { className: "gone" }, "file gone"),
    ),
  );
}

/**
 * The pictures that the address chooses, more of them on scrolling.
 * @param {import("./navigation.js").Entry} entry
 * @param {AbortSignal} signal
 */
export function browser(entry, signal) {
  const { label, folder } = entry.asked;
  const list = element("ol", { className: "tiles" });
  const rest = element("div", {});
  let sayMore = () => {}; // to what is shown large
  let hasFailed = false; // what was to come next
  /** @type {{images: Hit[], next: string | null}} */
  const answer = (entry.answer ??= { images: [], next: "" });
  const said = new URLSearchParams({ limit: String(PAGE), codes: "true" });
  if (label !== null) said.set("label", label);
  if (folder) said.set("uri_prefix", folder);

  const load = async () => {
    if (answer.next) said.set("after", answer.next);
    rest.replaceChildren(skeleton(12));
    hasFailed = false;
    try {
      const page = await ask(`/v1/images?${said}`, { signal });
      const first = answer.images.length;
      answer.images.push(...page.images);
      answer.next = page.next;
      show(answer.images.slice(first));
      sayMore();
    } catch (error) {
      if (signal.aborted) return;
      rest.replaceChildren(trouble(error, load));
      hasFailed = true;
      sayMore();
    }
  };
  /** @param {Hit} image */
  const tileOf = (image) =>
    tile(image, (opener) => {
      const pictures = { hits: answer.images, hit: image, unit: "", opener, kept: null };
      sayMore = openLightbox(entry, { ...pictures, mayGrow: () => !hasFailed && answer.next !== null });
    });
  /** @param {Hit[]} images */
  const show = (images) => {
    list.append(...images.map(tileOf));
    if (answer.next !== null) {
      const waited = skeleton(6);
      rest.replaceChildren(waited);
      whenSeen(waited, load, signal);
    } else if (answer.images.length) rest.replaceChildren();
    else rest.replaceChildren(empty("No picture is here", "The gallery may have changed since."));
  };
  if (answer.images.length) show(answer.images);
  else load();
  return element("section", { "aria-label": "Pictures" }, list, rest);
}
