/** The query beside its results: the picture with the part that is searched for, and its code. */

import { NOTHING } from "./address.js";
import { cropBox } from "./crop.js";
import { byId, element } from "./dom.js";
import { HAS_PICTURES } from "./facts.js";
import { go, shown } from "./navigation.js";
import { encode } from "./occlusion.js";
import { hasExamples } from "./question.js";
import { ask, reconstruction, thumbnail } from "./service.js";
import { hideUnderstanding, understand } from "./understand.js";

/** @typedef {import("./navigation.js").Entry} Entry */

const REMEMBERED = "What this code decodes to; its picture is not at hand.";
const PANORAMA = 2.5; // times as long as it is high, or as high as it is long

/** @type {string | null} */
let shownUrl = null; // of a picture that was given
/** @type {WeakMap<Blob, string>} */
const previews = new WeakMap(); // addresses, by the pictures that the browser cannot show

/** @param {Entry} entry */
export function showQuery(entry) {
  showPicture(entry);
  understand(entry);
}

/** @param {Entry} entry */
function showPicture(entry) {
  const { asked, picture } = entry;
  if (shownUrl) URL.revokeObjectURL(shownUrl);
  shownUrl = null;
  const frame = byId("query-picture");
  const held = frame.contains(document.activeElement) && document.activeElement;
  const sources = sourcesOf(entry);
  if (!sources.length) return frame.replaceChildren();
  const hasPicture = picture !== null || (asked.id !== null && HAS_PICTURES);
  const image = element("img", { alt: "The picture that is searched for" });
  // Known before it is loaded, so that nothing below it moves.
  if (!hasPicture) image.width = image.height = 32;
  image.addEventListener("load", () => {
    const ratio = image.naturalWidth / image.naturalHeight;
    frame.style.setProperty("--ratio", String(ratio));
    frame.classList.toggle("panorama", Math.max(ratio, 1 / ratio) > PANORAMA);
  });
  image.addEventListener("error", () => {
    if (!picture) whole.querySelector(".crop")?.remove(); // no picture is kept to take a part of
    showNext();
  });
  const whole = element("div", { className: "whole" }, image);
  const isCode = !picture && asked.id === null;
  frame.replaceChildren(whole, ...(isCode ? [element("p", {}, REMEMBERED)] : []));
  showNext();
  // With examples, the query's code is sent, and not a part of its picture.
  if (hasExamples(asked) || !hasPicture) return;
  let own = entry; // that the box is of
  whole.append(cropBox(asked.crop, cropTo));
  const again = held && frame.getElementsByClassName(held.className)[0];
  if (again instanceof HTMLElement) again.focus({ preventScroll: true });

  /** Show what the next source gives; after the last one, the query is shown by nothing. */
  async function showNext() {
    if (!whole.isConnected) return;
    const source = sources.shift();
    if (source) {
      try {
        image.src = await source();
      } catch {
        showNext();
      }
    } else {
      whole.remove();
      if (asked.code === null) hideUnderstanding();
    }
  }

  /** @param {string | null} crop */
  function cropTo(crop) {
    if (shown() !== own) return; // something else is asked since
    const isWhole = crop === null && asked.id !== null;
    go({ crop, code: null }, isWhole ? { picture: null } : {});
    own = shown();
  }
}

/**
 * What gives the address of a picture of the query, the best first.
 * @param {Entry} entry
 * @returns {(() => string | Promise<string>)[]}
 */
function sourcesOf({ asked: { id, code }, picture }) {
  if (picture) {
    const own = () => previews.get(picture) ?? (shownUrl = URL.createObjectURL(picture));
    return [own, () => previewOf(picture)];
  }
  const decoded = async () => reconstruction(code ?? (await ask(`/v1/images/${id}`)).code);
  if (id !== null && HAS_PICTURES) return [() => thumbnail(id), decoded];
  return id !== null || code !== null ? [decoded] : [];
}

/**
 * The service's picture of one that the browser cannot show, such as HEIC.
 * @param {Blob} picture
 */
async function previewOf(picture) {
  const { url } = await encode({ asked: NOTHING, picture }, "preview");
  previews.set(picture, url);
  return url;
}
