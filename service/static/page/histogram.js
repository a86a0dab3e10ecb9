/** How far all pictures are from the query, and the slider that sets the greatest distance. */

import { element } from "./dom.js";
import { gallery } from "./facts.js";
import { go, shown } from "./navigation.js";
import { counted, number } from "./words.js";

const HEIGHT = 64; // of the drawing, in units of which a bit is one wide
const REACH = 160; // bits that are drawn at least; chance hardly brings pictures farther apart
const SETTLES_MS = 350; // after the last key
const ENDS = ["pointerup", "pointercancel"];

const BARS = "Each bar counts the pictures at one distance, the most alike at the left";
const CHANCE = "right of the dashed line, unlike pictures mix with like ones";
const UNMEASURED = "how near unlike pictures come by chance was not measured for this gallery’s model";

/** @type {Promise<void> | null} */
let moving = null;
let rest = () => {}; // ends it

/** Wait until nobody moves the slider: an answer that is shown replaces it. */
export const atRest = () => moving;

/**
 * The histogram of an answer with a slider beneath it, which sets the radius.
 * @param {import("./navigation.js").Entry} entry
 * @returns {HTMLElement | null} null if distances were not counted
 */
export function distances(entry) {
  const { asked, answer } = entry;
  /** @type {number[]} */
  const counts = answer.histogram;
  if (!counts) return null;
  const within = sums(counts);
  const last = Math.max(REACH, counts.findLastIndex(Boolean));
  let close = -1; // greatest distance of likeness; none where it was not measured
  const plot = element("div", { className: "plot", "aria-hidden": "true" });
  plot.innerHTML =
    `<svg viewBox="0 0 ${last + 1} ${HEIGHT}" preserveAspectRatio="none">` +
    '<path class="within"/><path class="far"/></svg>';
  const [near, far] = plot.querySelectorAll("path");
  const output = element("output");
  const [summary, meaning] = [element("p", {}, summaryOf(counts, null)), element("p")];
  const input = element("input", {
    type: "range",
    min: "0",
    max: String(last),
    value: String(asked.radius ?? last),
    "aria-label": "Greatest distance in bits",
  });
  show();
  gallery().then(({ closeness }) => {
    meaning.textContent = `${BARS}; ${closeness ? CHANCE : UNMEASURED}.`;
    if (!closeness) return;
    close = closeness.alike;
    const line = element("span", { className: "chance" }, "chance begins");
    line.style.left = `${(100 * (close + 1)) / (last + 1)}%`;
    plot.append(line);
    summary.textContent = summaryOf(counts, close);
    show();
  }, () => {});

  let own = entry; // whose radius is set
  let isHeld = false; // by a pointer
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  input.addEventListener("input", () => {
    show();
    move();
  });
  input.addEventListener("pointerdown", ({ button }) => button === 0 && hold()); // the main one
  let before = input.value; // the plot was touched
  /** @param {PointerEvent} event */
  const follow = ({ clientX }) => {
    const { left, width } = plot.getBoundingClientRect();
    input.value = String(Math.floor(((clientX - left) / width) * (last + 1)));
    show();
  };
  plot.addEventListener("pointerdown", (event) => {
    if (event.button) return; // not the main one
    before = input.value;
    plot.setPointerCapture(event.pointerId);
    plot.addEventListener("pointermove", follow);
    hold();
    follow(event);
  });
  plot.addEventListener("pointercancel", () => {
    input.value = before; // the finger scrolls the page
    show();
  });
  if (document.activeElement?.matches(".distances input")) {
    queueMicrotask(() => input.focus({ preventScroll: true })); // as the slider that it replaces
  }
  const label = element("label", {}, "Within ", output);
  const about = element("details", {}, element("summary", {}, "What the bars mean"), meaning);
  return element("div", { className: "distances" }, plot, input, label, summary, about);

  /** Begin to move the slider, or go on; without a pointer, it rests a while after the last key. */
  function move() {
    if (!moving) own = shown();
    moving ??= new Promise((resolve) => (rest = resolve));
    clearTimeout(timer);
    if (!isHeld) timer = setTimeout(settle, SETTLES_MS);
  }

  function hold() {
    isHeld = true;
    move();
    for (const end of ENDS) addEventListener(end, letGo);
  }

  function letGo() {
    isHeld = false;
    plot.removeEventListener("pointermove", follow);
    for (const end of ENDS) removeEventListener(end, letGo);
    settle();
  }

  function settle() {
    clearTimeout(timer);
    const radius = input.valueAsNumber === last ? null : input.valueAsNumber;
    // Unless something else is asked since.
    if (shown() === own && radius !== own.asked.radius) go({ radius }, { replace: true, stay: true });
    moving = null;
    rest();
  }

  function show() {
    const bits = input.valueAsNumber;
    output.value = bits === last ? "any distance" : `${counted(bits, "bit")}: ${counted(within[bits], "picture")}`;
    input.setAttribute("aria-valuetext", output.value);
    const end = bits === last ? close : bits;
    near.setAttribute("d", outline(counts, 0, end));
    far.setAttribute("d", outline(counts, end + 1, last));
  }
}

/**
 * The number of pictures within each distance.
 * @param {number[]} counts
 */
export function sums(counts) {
  let sum = 0;
  return counts.map((count) => (sum += count));
}

/**
 * Bars on a logarithmic scale, as an SVG path.
 * @param {number[]} counts
 * @param {number} first
 * @param {number} last inclusive
 */
export function outline(counts, first, last) {
  const most = Math.log1p(Math.max(...counts, 1));
  const bars = counts.slice(first, last + 1).map((count, place) => {
    const height = ((HEIGHT * Math.log1p(count)) / most).toFixed(1);
    return count ? `M${first + place} ${HEIGHT}v-${height}h1V${HEIGHT}z` : "";
  });
  return bars.join("");
}

/**
 * The histogram in a sentence.
 * @param {number[]} counts
 * @param {number | null} alike greatest distance of likeness; null if it was not measured
 */
export function summaryOf(counts, alike) {
  const within = sums(counts);
  const all = within[within.length - 1];
  if (!all) return "There is no picture to be found.";
  const [least, most] = [counts.findIndex(Boolean), counts.findLastIndex(Boolean)];
  const away = least === most ? counted(least, "bit") : `${least} to ${most} bits`;
  const whole = `${counted(all, "picture")}, ${away} away`;
  if (alike === null) return `${whole}.`;
  return `${whole}; ${number(within[alike])} within ${alike} bits, beyond which chance begins.`;
}
