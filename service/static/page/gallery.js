/** What the gallery holds, the job at work, and the files that could not be read. */

import { browser, linkTo } from "./browse.js";
import { copyButton } from "./clipboard.js";
import { byId, element } from "./dom.js";
import { gallery, METHODS } from "./facts.js";
import { crumbsOf, folderName, memory } from "./holdings.js";
import { ask, pause, Problem, ROOT } from "./service.js";
import { code, emptyGallery, fill, moreButton, replace, skeleton, trouble } from "./states.js";
import { counted, number, pathOf, sentence } from "./words.js";

/** @typedef {import("./address.js").Asked} Asked */

const BARS = 20; // labels; the others are folded up
const POLL_MS = 2000; // while a job is at work

let key = ""; // an API key that was typed in; it is kept nowhere else

/**
 * @param {import("./navigation.js").Entry} entry
 * @param {AbortSignal} signal
 */
export async function showGallery(entry, signal) {
  const results = byId("results");
  const { label, folder } = entry.asked;
  if (!entry.answer && !results.contains(document.activeElement)) {
    results.replaceChildren(skeleton(12));
  }
  const described = await gallery({ renew: true });
  signal.throwIfAborted();
  let parts = [emptyGallery(), described.job && job(described.job, signal)];
  if (described.images) {
    const shown = label === null && !folder ? overview : selection;
    parts = await shown(entry, described, signal);
    signal.throwIfAborted();
  }
  replace(results, element("div", { className: "gallery", "aria-live": "off" }, ...parts));
}

/**
 * @param {import("./navigation.js").Entry} entry
 * @param {any} described
 * @param {AbortSignal} signal
 */
async function overview({ asked }, described, signal) {
  const { images, labels, n_labels, indexes, thumbnails, originals, writes } = described;
  const cards = [
    labels.length && card("Labels", ...labelBars(asked, labels, n_labels)),
    card("Folders", await folders(asked, signal)),
    card("Memory", bars(memory(described, keepsPixels(described)))),
    job(described.job, signal),
    card("Model", ...model(described)),
    card(
      "Search",
      ...(indexes.length ? indexes.map(index) : [p("Every search compares all codes.")]),
      p(`The gallery keeps ${thumbnails ? "" : "no "}thumbnails.`),
      p(`Original files can${originals ? "" : "not"} be opened.`),
      p(`Images can${writes ? "" : "not"} be added and removed${writes ? " with an API key" : ""}.`),
    ),
    failures(writes, signal),
  ];
  return [
    element("h2", { tabIndex: -1 }, counted(images, "picture")),
    element("div", { className: "cards" }, ...cards),
  ];
}

/**
 * The pictures with a label or in a folder, below the folders in it.
 * @param {import("./navigation.js").Entry} entry
 * @param {any} described
 * @param {AbortSignal} signal
 */
async function selection(entry, { labels }, signal) {
  const { asked } = entry;
  const { label, folder } = asked;
  const crumbs = crumbsOf(folder ?? "");
  const title = label ?? crumbs.pop()?.name ?? "";
  const count = element("span", { className: "count" });
  const known = labels.find((/** @type {any} */ one) => one.label === label);
  if (known && !folder) count.textContent = counted(known.images, "picture");
  const inner = label === null && (await folders(asked, signal, count));
  return [
    element(
      "nav",
      { className: "crumbs", "aria-label": "Folders" },
      linkTo(asked, { label: null, folder: null }, "Gallery"),
      ...crumbs.map((one) => linkTo(asked, { label: null, folder: one.folder }, one.name)),
    ),
    element("h2", { tabIndex: -1 }, title, count),
    inner,
    browser(entry, signal),
  ];
}

/**
 * @param {string} title
 * @param {...(Node | string)} children
 */
const card = (title, ...children) =>
  element("section", { className: "card" }, element("h3", {}, title), ...children);

/** @param {...(Node | string)} children */
const p = (...children) => element("p", {}, ...children);

/** @param {import("./holdings.js").Bar[]} rows */
function bars(rows) {
  const items = rows.map(({ name, amount, share }) => {
    const item = element("li", {}, name, element("span", { className: "count" }, amount));
    item.style.setProperty("--share", String(share));
    return item;
  });
  return element("ul", { className: "bars" }, ...items);
}

/**
 * @param {Asked} asked
 * @param {{label: string, images: number}[]} labels the most frequent first
 * @param {number} all number of labels
 */
function labelBars(asked, labels, all) {
  const rows = labels.map(({ label, images }) => ({
    name: linkTo(asked, { label, folder: null }, label),
    amount: number(images),
    share: images / labels[0].images,
  }));
  const list = bars(rows.slice(0, BARS));
  if (rows.length <= BARS) return [list];
  const summary = element("summary", {}, counted(all - BARS, "more label"));
  const rare = all > rows.length && p(`${counted(all - rows.length, "rarer label")} not listed`);
  return [list, element("details", {}, summary, bars(rows.slice(BARS)), rare)];
}

/**
 * The folders in a folder, or the sources.
 * @param {Asked} asked
 * @param {AbortSignal} signal
 * @param {HTMLElement} [count] is given the number of pictures in the folder
 */
async function folders(asked, signal, count) {
  const place = element("div", { className: "folders" });
  /** @param {string | null} after */
  const page = async (after) => {
    const said = new URLSearchParams({ prefix: asked.folder ?? "", ...(after && { after }) });
    const answer = await ask(`/v1/gallery/folders?${said}`, { signal });
    if (count) count.textContent = counted(answer.images, "picture");
    const rows = answer.folders.map((/** @type {any} */ one) => ({
      name: linkTo(asked, { folder: one.prefix, label: null }, folderName(one.name)),
      amount: number(one.images),
      share: one.images / answer.images,
    }));
    return { shown: rows.length ? [bars(rows)] : [], next: answer.next };
  };
  await fill(place, page, signal);
  return place;
}

/** @type {Record<string, string>} */
const STATES = {
  running: "at work",
  killed: "its process ended before it was done",
  silent: "it has recorded nothing for a while",
};

/**
 * The newest job, which is asked for again while it is at work.
 * @param {any} now as the gallery describes it
 * @param {AbortSignal} signal
 */
function job(now, signal) {
  const made = card("Newest job");
  const [title] = made.children;
  const watch = async () => {
    while (now?.state === "running" || now?.state === "silent") {
      await pause(POLL_MS, signal);
      try {
        const newest = await gallery({ renew: true });
        now = newest.job;
        made.replaceChildren(title, ...jobParts(now));
        const heading = made.closest(".cards")?.previousElementSibling;
        if (heading) heading.textContent = counted(newest.images, "picture");
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        made.replaceChildren(title, p(error.message));
      }
    }
  };
  made.append(...jobParts(now));
  watch().catch((error) => signal.aborted || console.error(error));
  return made;
}

/**
 * @param {any} job
 * @returns {Node[]}
 */
function jobParts(job) {
  if (!job) return [p("No job has written to this gallery yet.")];
  const { kind, state, started, updated, ended, expected } = job;
  /** @type {[string, number][]} */
  const counts = Object.entries(job.counts);
  /** @type {Node[]} */
  const parts = [p(`${kind}: ${STATES[state] ?? state}`)];
  const rows = counts.filter(([, count]) => count).map(([outcome, count]) => [outcome, number(count)]);
  if (job.images_per_second) rows.push(["images a second", number(job.images_per_second)]);
  rows.push(["started", time(started)]);
  if (ended ?? updated) rows.push([ended ? "ended" : "last recorded", time(ended ?? updated)]);
  if (state === "running") {
    const gone = counts.filter(([outcome]) => !/^(pruned|excluded)$/.test(outcome));
    const through = gone.reduce((sum, [, count]) => sum + count, 0);
    const share = expected && { max: expected, value: Math.min(through, expected) };
    parts.push(
      element("progress", { ...share, "aria-label": "Progress of the job" }),
      p(`${number(through)}${expected ? ` of about ${number(expected)}` : ""} images`),
    );
  }
  return [...parts, facts(rows)];
}

/** @param {(string | Node)[][]} rows names and values */
const facts = (rows) =>
  element(
    "dl",
    { className: "facts" },
    ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
  );

/** @param {string} iso in UTC */
const time = (iso) =>
  new Date(iso).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });

/** @param {any} described */
function model({ fingerprint, model: name, generation, closeness }) {
  const copy = copyButton("Copy the fingerprint", () => fingerprint);
  copy.className = "small";
  const meaning = closeness
    ? `In 95 of 100 cases, at most ${closeness.same} of a code's 256 bits differ between copies of a ` +
      `picture (same), and at most ${closeness.near} after a slight crop or mirroring (near). Up to ` +
      `${closeness.alike}, pictures are alike; beyond, the code alone cannot tell like from unlike.`
    : "It was not measured what distances between this model's codes mean.";
  const named = element("span", {}, code(fingerprint), " ", copy);
  const rows = [["fingerprint", named], ["generation", number(generation)]];
  return [facts(name ? [["name", name], ...rows] : rows), p(meaning)];
}

/** @param {any} built */
const index = ({ kind, title, recall, query_ms, exact_ms, loaded }) =>
  p(
    `${sentence(`${kind}: ${title}`)} It finds ${(recall * 100).toFixed(1)}% of the ten nearest in ` +
      `${query_ms.toFixed(1)} ms; comparing all codes takes ${exact_ms.toFixed(1)} ms.` +
      (loaded ? "" : " It is not loaded."),
  );

/**
 * The files that could not be read, for those who have an API key.
 * @param {boolean} keys whether the service has keys
 * @param {AbortSignal} signal
 */
function failures(keys, signal) {
  const made = card("Files that could not be read");
  if (!keys) {
    made.append(p("They are listed by ", code("hashsearch gallery failures GALLERY"), "."));
    return made;
  }
  const list = element("ul", { className: "failures" });
  const rest = element("div");
  const said = new URLSearchParams();
  made.tabIndex = -1;
  let isLoading = false;
  const load = async () => {
    if (isLoading) return; // a page that is asked for twice would be listed twice
    isLoading = true;
    const held = made.contains(document.activeElement);
    try {
      if (/[^!-~]/.test(key)) throw new Problem("an API key has only visible ASCII characters");
      const answer = await ask(`/v1/gallery/failures?${said}`, { key, signal });
      for (const { uri, reason, time: at } of answer.failures) {
        const why = element("span", {}, `${sentence(reason)} ${time(at)}`);
        list.append(element("li", {}, pathOf(uri), why));
      }
      said.set("after", answer.next ?? "");
      form.remove();
      rest.replaceChildren(
        answer.next ? moreButton(load) : list.childElementCount ? "" : "All files could be read.",
      );
      if (held) made.focus({ preventScroll: true });
    } catch (error) {
      if (!signal.aborted) rest.replaceChildren(trouble(error, load));
    } finally {
      isLoading = false;
    }
  };
  const url = `${location.origin}${ROOT}/v1/gallery/failures`;
  const input = element("input", { autocomplete: "off", spellcheck: false, className: "key" });
  const form = element(
    "form",
    {},
    p("The list needs an API key: ", code(`curl -H 'Authorization: Bearer KEY' ${url}`)),
    element("label", {}, "API key ", input),
    element("button", {}, "Show the files"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    key = input.value.trim();
    load();
  });
  made.append(form, list, rest);
  if (key) load();
  return made;
}

/** @param {{methods: string[]}} described */
const keepsPixels = ({ methods }) =>
  METHODS.some(({ name, of_pixels }) => of_pixels && methods.includes(name));
