/** The query beside its results: the picture with the part that is searched for, and its code. */

import { cropBox } from "./crop.js";
import { byId, element } from "./dom.js";
import { go } from "./navigation.js";
import { encode } from "./occlusion.js";
import { reconstruction, thumbnail } from "./service.js";
import { understand } from "./understand.js";

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
  if (!picture && asked.id === null && asked.code === null) {
    frame.replaceChildren();
    return;
  }
  const image = element("img", { alt: "The picture that is searched for" });
  if (picture) {
    shownUrl = image.src = URL.createObjectURL(picture);
    const preview = async () => (image.src = (await encode({ asked, picture }, "preview")).url);
    // The service reads formats that a browser cannot show, such as HEIC.
    image.addEventListener("error", () => preview().catch(() => image.remove()), { once: true });
  }
  else if (asked.id !== null) image.src = thumbnail(asked.id);
  else {
    image.width = image.height = 32; // known before it is loaded, so that nothing below it moves
    image.src = reconstruction(asked.code ?? "");
  }
  image.addEventListener("load", () => {
    frame.style.setProperty("--ratio", String(image.naturalWidth / image.naturalHeight));
  });
  frame.replaceChildren(image);
  if (picture || asked.id !== null) {
    frame.append(cropBox(asked.crop, (crop) => go({ crop, ...(picture && { code: null }) })));
  }
}
