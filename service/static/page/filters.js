/** What narrows a search: labels, folders, and the greatest distance. */

import { element } from "./dom.js";
import { distances } from "./histogram.js";
import { crumbsOf, folderName } from "./holdings.js";
import { go, shown } from "./navigation.js";
import { ask } from "./service.js";
import { fill } from "./states.js";
import { number, pathOf } from "./words.js";

const SHOWN = 12; // labels before "more"

/** @typedef {{label: string, images: number | null}} Label images: how many have it; null: unknown */

/**
 * Labels and folders.
 * @param {import("./navigation.js").Entry} entry
 * @param {Label[]} labels of the gallery
 * @param {...Node} others
 * @returns {HTMLElement}
 */
export function narrowing(entry, labels, ...others) {
  const chips = element("div", { className: "chips labels" }, ...labelChips(labels, entry.asked.label));
  return element("div", {}, chips, element("div", { className: "others" }, folders(entry), ...others));
}

/**
 * Everything that narrows a search by code.
 * @param {import("./navigation.js").Entry} entry
 * @param {Label[]} labels
 */
export function filters(entry, labels) {
  const former = document.querySelector(".in-find");
  const { label, folder, radius, once: isOnce } = entry.asked;
  const isNarrowed = label !== null || folder !== null || radius !== null || isOnce;
  const isWide = matchMedia("(min-width: 36rem)").matches; // elsewhere, pictures come first
  return element(
    "details",
    { className: "in-find", open: former instanceof HTMLDetailsElement ? former.open : isWide || isNarrowed },
    element("summary", {}, "Narrow the search"),
    element("div", { className: "filters" }, narrowing(entry, labels, once(entry)), distances(entry)),
  );
}

/**
 * The folder that is searched, those that it lies in, and those within it.
 * @param {import("./navigation.js").Entry} entry
 */
function folders({ asked: { folder } }) {
  const chips = element("div", { className: "chips" });
  const path = folder === null ? "all folders" : folderName(pathOf(folder));
  const wasOpen = document.querySelector(".in-folders[open]") !== null;
  const summary = element("summary", {}, `Folder: ${path}`);
  const list = element("details", { className: "in-folders", open: wasOpen }, summary, chips);
  /** @param {string | null} after */
  const within = async (after) => {
    const said = new URLSearchParams({ prefix: folder ?? "", ...(after && { after }) });
    const { folders, next } = await ask(`/v1/gallery/folders?${said}`);
    const shown = folders.map((/** @type {any} */ { prefix, name, images }) => folderChip(prefix, name, images));
    return { shown, next };
  };
  const show = () => {
    chips.append(
      folderChip(null, "all folders", null, folder === null),
      ...crumbsOf(folder ?? "").slice(0, -1).map((one) => folderChip(one.folder, one.name, null)),
    );
    fill(chips, within);
  };
  list.addEventListener("toggle", show, { once: true });
  return list;
}

/**
 * @param {string | null} folder
 * @param {string} name
 * @param {number | null} images in it
 * @param {boolean} chosen
 */
const folderChip = (folder, name, images, chosen = false) =>
  chip(`folder ${folder ?? ""}`, folderName(name), images, chosen, () => go({ folder }));

/**
 * Whether pictures that are nearly equal are shown once.
 * @param {import("./navigation.js").Entry} entry
 */
function once({ asked }) {
  const box = element("input", { type: "checkbox", checked: asked.once, id: "once" });
  box.addEventListener("change", () => go({ once: box.checked }, { replace: true, stay: true }));
  return element("label", { className: "check" }, box, "Hide near-duplicates");
}

/**
 * Those that the service lists, and the chosen one, which an address may name.
 * @param {Label[]} listed
 * @param {string | null} chosen
 */
function labelChips(listed, chosen) {
  const isListed = chosen === null || listed.some(({ label }) => label === chosen);
  const labels = isListed ? listed : [{ label: chosen, images: null }, ...listed];
  const shown = labels.filter(({ label }, place) => place < SHOWN || label === chosen);
  const hidden = labels.filter((one) => !shown.includes(one));
  const chips = shown.map((one) => labelChip(one, chosen));
  if (!hidden.length) return chips;
  const others = element("div", { className: "chips" });
  const more = element("details", {}, element("summary", {}, `${number(hidden.length)} more`), others);
  const show = () => others.append(...hidden.map((one) => labelChip(one, chosen)));
  more.addEventListener("toggle", show, { once: true });
  return [...chips, more];
}

/**
 * @param {Label} one
 * @param {string | null} chosen
 */
function labelChip({ label, images }, chosen) {
  return chip(`label ${label}`, label, images, label === chosen, ({ currentTarget }) => {
    const isChosen = label === shown().asked.label; // which an answer that is awaited does not show yet
    go({ label: isChosen ? null : label });
    const pressed = /** @type {HTMLElement} */ (currentTarget);
    for (const one of pressed.closest(".labels")?.querySelectorAll(".chip") ?? []) {
      one.ariaPressed = String(one === pressed && !isChosen);
    }
  });
}

/**
 * @param {string} id
 * @param {string} name
 * @param {number | null} images
 * @param {boolean} chosen
 * @param {(event: MouseEvent) => void} press
 */
function chip(id, name, images, chosen, press) {
  const button = element(
    "button",
    { type: "button", className: "chip", id, "aria-pressed": String(chosen) },
    name,
    images !== null && element("span", { className: "count" }, number(images)),
  );
  button.addEventListener("click", press);
  return button;
}
