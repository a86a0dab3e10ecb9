/** The query beside its results: the picture with the part that is searched for, and its code. */

import { cropBox } from "./crop.js";
import { byId, element } from "./dom.js";
import { HAS_PICTURES } from "./facts.js";
import { go } from "./navigation.js";
import { encode } from "./occlusion.js";
import { hasExamples } from "./question.js";
import { ask, reconstruction, thumbnail } from "./service.js";
import { understand } from "./understand.js";

const PANORAMA = 2.5; // times as long as it is high, or as high as it is long

/** @type {string | null} */
let shownUrl = null; // of a picture that was given

/** @param {import("./navigation.js").Entry} entry */
export function showQuery(entry) {
  showPicture(entry);
  understand(entry);
}

/** @param {import("./navigation.js").Entry} entry */
function showPicture({ asked, picture }) {
  if (shownUrl) URL.revokeObjectURL(shownUrl);
  shownUrl = null;
  const frame = byId("query-picture");
  const held = frame.contains(document.activeElement) && document.activeElement;
  const image = element("img", { alt: "The picture that is searched for" });
  const whole = element("div", { className: "whole" }, image);
  if (picture) {
    shownUrl = image.src = URL.createObjectURL(picture);
    // The service reads formats that a browser cannot show, such as HEIC.
    const preview = async () => (image.src = (await encode({ asked, picture }, "preview")).url);
    image.addEventListener("error", () => preview().catch(() => whole.remove()), { once: true });
  } else if (asked.id !== null && HAS_PICTURES) {
    image.src = thumbnail(asked.id);
  } else if (asked.id !== null || asked.code !== null) {
    image.width = image.height = 32; // known before it is loaded, so that nothing below it moves
    codeOf(asked).then((code) => (image.src = reconstruction(code)), () => whole.remove());
  } else {
    frame.replaceChildren();
    return;
  }
  image.addEventListener("load", () => {
    const ratio = image.naturalWidth / image.naturalHeight;
    frame.style.setProperty("--ratio", String(ratio));
    frame.classList.toggle("panorama", Math.max(ratio, 1 / ratio) > PANORAMA);
  });
  frame.replaceChildren(whole);
  // With examples, the query's code is sent, and not a part of its picture.
  if (hasExamples(asked) || !(picture || (asked.id !== null && HAS_PICTURES))) return;
  whole.append(cropBox(asked.crop, (crop) => cropTo(crop)));
  const again = held && frame.getElementsByClassName(held.className)[0];
  if (again instanceof HTMLElement) again.focus({ preventScroll: true });

  /** @param {string | null} crop */
  function cropTo(crop) {
    const isWhole = crop === null && asked.id !== null;
    go({ crop, ...(asked.id === null && { code: null }) }, isWhole ? { picture: null } : {});
  }
}

/** @param {import("./address.js").Asked} asked */
async function codeOf({ id, code }) {
  return code ?? (await ask(`/v1/images/${id}`)).code;
}
