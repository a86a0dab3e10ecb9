/** Groups of pictures that are nearly equal. */

import { opener } from "./browse.js";
import { csv, save } from "./csv.js";
import { byId, element } from "./dom.js";
import { gallery } from "./facts.js";
import { rowsOf, wordOf } from "./groups.js";
import { openLightbox } from "./lightbox.js";
import { go } from "./navigation.js";
import { ask, pause, Problem } from "./service.js";
import { code, empty, emptyGallery, replace, skeleton, trouble, whenSeen } from "./states.js";
import { counted, nameOf, number, pathOf, size } from "./words.js";

const SEEN = { limit: "24", codes: "true" }; // groups of a request, with codes for their pictures
const EXPORTED = { limit: "1000" }; // the most that the service gives
const SHOWN = 12; // files of a group; the others are folded up
const UNMEASURED = 32; // greatest radius, by the service, where closeness was not measured
const FIRST_RADIUS = 8; // that is proposed there
const WAITS_MS = [300, 700, 2000]; // between the questions whether the groups are computed
const SETTLES_MS = 500; // after the slider's last move

/**
 * @param {import("./navigation.js").Entry} entry
 * @param {AbortSignal} signal
 */
export async function showDuplicates(entry, signal) {
  const results = byId("results");
  if (!entry.answer && !results.contains(document.activeElement)) {
    results.replaceChildren(skeleton(12));
  }
  const { images, closeness } = await gallery();
  signal.throwIfAborted();
  if (!images) return replace(results, emptyGallery());
  const most = closeness?.near ?? UNMEASURED;
  const { radius: asked } = entry.asked;
  const radius = asked !== null && asked <= most ? asked : closeness?.same ?? null;

  const status = element("p", { className: "status", role: "status" });
  const tools = element("div", { className: "filters" }, slider(radius, most, closeness, signal));
  const list = element("ol", { className: "groups" });
  const rest = element("div");
  const parts = [...lead(), tools, status, list, rest];
  replace(results, element("div", { className: "duplicates", "aria-live": "off" }, ...parts));
  if (radius === null) {
    status.textContent =
      "It was not measured how near copies lie for this gallery's model, so a radius is needed: " +
      "choose how many of the 256 bits may differ.";
    const compare = element("button", { className: "primary" }, "Find duplicates");
    compare.addEventListener("click", () => {
      go({ radius: Number(/** @type {HTMLInputElement} */ (byId("radius")).value) });
    });
    tools.append(compare);
    return;
  }

  const within = `within ${counted(radius, "bit")}`;
  /** @param {any[]} groups the last of those that were loaded */
  const show = (groups) => {
    const { answer } = entry;
    const first = answer.groups.length - groups.length + 1;
    list.append(...groups.map((group, place) => card(first + place, group, entry, closeness)));
    status.textContent = answer.total ? `${counted(answer.total, "group")} ${within}` : "";
    rest.replaceChildren();
    if (answer.next) whenSeen(rest.appendChild(skeleton(6)), load, signal);
    else if (!answer.groups.length) {
      const said =
        images === 1
          ? "The gallery holds one picture alone."
          : `No two of the ${counted(images, "picture")} are ${within} of each other.`;
      const wider = images > 1 && radius < most && " Move the slider to the right to compare less strictly.";
      rest.append(empty("No duplicates", said, wider || ""));
    }
    if (answer.total && !tools.querySelector("button")) tools.append(exporter(radius, signal));
  };
  const load = async () => {
    const known = entry.answer;
    try {
      if (!known) {
        list.replaceChildren();
        status.textContent = `Comparing ${counted(images, "picture")}…`;
        rest.replaceChildren(element("progress", { "aria-label": "Comparing" }), skeleton(12));
      }
      const page = await pageOf(radius, known?.next, SEEN, signal);
      entry.answer = { ...page, groups: [...(known?.groups ?? []), ...page.groups] };
      show(page.groups);
    } catch (error) {
      if (signal.aborted) return;
      if (known && error instanceof Problem && error.code === "list-changed") {
        entry.answer = null;
        load();
      } else {
        if (!known) status.textContent = "";
        rest.replaceChildren(trouble(error, load));
      }
    }
  };
  if (entry.answer) show(entry.answer.groups);
  else load();
}

/** What the view is for, and that it deletes nothing. */
const lead = () => [
  element("h2", { tabIndex: -1 }, "Duplicates"),
  element(
    "p",
    { className: "lead" },
    "Groups of nearly equal pictures, the surest first. Nothing is deleted from here: ",
    code("hashsearch gallery duplicates GALLERY --csv"),
    " prints the groups for a script of yours that deletes files, and ",
    code("hashsearch gallery remove GALLERY --id ID"),
    " takes images out of the gallery.",
  ),
];

/**
 * @param {number | null} radius
 * @param {number} most
 * @param {import("./groups.js").Closeness} closeness
 * @param {AbortSignal} signal
 */
function slider(radius, most, closeness, signal) {
  const output = element("output");
  const value = String(radius ?? FIRST_RADIUS);
  const input = element("input", { id: "radius", type: "range", max: String(most), value });
  const say = () => {
    const bits = Number(input.value);
    const word = bits ? wordOf(bits, closeness) : "equal codes";
    output.value = [`${bits} of 256 bits`, word].filter(Boolean).join(": ");
    input.setAttribute("aria-valuetext", output.value);
  };
  say();
  let timer = 0;
  const settled = () => go({ radius: Number(input.value) }, { replace: true });
  input.addEventListener("input", say);
  input.addEventListener("change", () => {
    clearTimeout(timer);
    if (radius !== null) timer = setTimeout(settled, SETTLES_MS);
  });
  signal.addEventListener("abort", () => clearTimeout(timer));
  return element("label", { className: "slider" }, "Within", input, output);
}

/**
 * A page of the groups; waits while they are computed.
 * @param {number} radius
 * @param {string | null | undefined} after `next` of the page before
 * @param {Record<string, string>} extent of the page
 * @param {AbortSignal} signal
 */
async function pageOf(radius, after, extent, signal) {
  const said = new URLSearchParams({ radius: String(radius), ...extent });
  if (after) said.set("after", after);
  for (let attempt = 0; ; attempt++) {
    try {
      return await ask(`/v1/duplicates?${said}`, { signal, patience: 0 });
    } catch (error) {
      const waits = error instanceof Problem && /^(being-computed|busy)$/.test(error.code ?? "");
      if (!waits) throw error;
    }
    await pause(WAITS_MS[Math.min(attempt, WAITS_MS.length - 1)], signal);
  }
}

/**
 * @param {number} place of the group in the list, from 1
 * @param {any} group
 * @param {import("./navigation.js").Entry} entry
 * @param {import("./groups.js").Closeness} closeness
 */
function card(place, { diameter, diameter_is_lower_bound, n_files, files: all }, entry, closeness) {
  const apart = `${diameter_is_lower_bound ? "at least" : "at most"} ${counted(diameter, "bit")} apart`;
  /** @type {import("./groups.js").File[]} */
  const files = all.map((/** @type {any} */ file, /** @type {number} */ place) => {
    return { ...file, closeness: place ? wordOf(file.distance, closeness) : null };
  });
  const [kept] = files;
  const tiles = files.map((file) =>
    tile(file, kept.id, (opener) => {
      openLightbox(entry, { hits: files, hit: file, unit: "bits", opener, kept });
    }),
  );
  const listed = (/** @type {Node[]} */ some) => element("ul", { className: "tiles" }, ...some);
  const folded = tiles.length > SHOWN && [
    element("summary", {}, counted(tiles.length - SHOWN, "more file")),
    listed(tiles.slice(SHOWN)),
    n_files > tiles.length && `${counted(n_files - tiles.length, "other file")} not listed`,
  ];
  return element(
    "li",
    { className: "group card" },
    element(
      "h3",
      {},
      `Group ${number(place)}: ${counted(n_files, "file")}`,
      element("span", {}, diameter ? apart : "equal codes"),
    ),
    listed(tiles.slice(0, SHOWN)),
    folded && element("details", {}, ...folded),
  );
}

/**
 * @param {import("./groups.js").File} file
 * @param {number} kept id of the image that is suggested to be kept
 * @param {(opener: HTMLElement) => void} open
 */
function tile(file, kept, open) {
  const { id, uri, keep, distance, width, height } = file;
  const word = id === kept ? "same bytes" : file.closeness;
  const [path, name] = [pathOf(uri), nameOf(uri)];
  const folder = path.endsWith(`/${name}`) && path.slice(0, -name.length - 1); // added files have none
  return element(
    "li",
    { className: keep ? "tile kept" : "tile", data: { id: String(id) } },
    opener(file, open),
    element("p", { className: "name", title: path }, name),
    folder && element("p", { className: "folder", title: folder }, element("bdi", {}, folder)),
    element(
      "p",
      { className: "said" },
      keep
        ? element("span", { className: "keep" }, "keep")
        : word && element("span", { className: `word ${word}` }, word),
      id !== kept && element("span", {}, counted(distance, "bit")),
      file.missing && element("span", { className: "gone" }, "file gone"),
    ),
    element(
      "p",
      { className: "said" },
      element("span", {}, `${width}×${height}`),
      element("span", {}, size(file.size)),
    ),
  );
}

/**
 * The button that exports all groups; what went wrong is said beside it.
 * @param {number} radius
 * @param {AbortSignal} signal
 */
function exporter(radius, signal) {
  const title = "Export as CSV";
  const button = element("button", {}, title);
  /** @type {HTMLElement | null} */
  let failed = null;
  const work = async () => {
    if (button.ariaDisabled === "true") return; // it keeps the focus
    button.ariaDisabled = "true";
    button.textContent = "Exporting…";
    button.focus();
    failed?.remove();
    try {
      const rows = [];
      for (let group = 0, after = null; after !== undefined; ) {
        const page = await pageOf(radius, after, EXPORTED, signal);
        for (const { files } of page.groups) rows.push(...rowsOf(++group, files));
        button.textContent = `${number(group)} of ${counted(page.total, "group")}…`;
        after = page.next ?? undefined;
      }
      save(`duplicates-${radius}-bits.csv`, csv(rows));
    } catch (error) {
      const isOld = error instanceof Problem && error.code === "list-changed";
      const why = isOld ? new Problem("the gallery has changed; export again") : error;
      if (!signal.aborted) button.after((failed = trouble(why, work)));
    }
    button.ariaDisabled = "false";
    button.textContent = title;
  };
  button.addEventListener("click", work);
  return button;
}
