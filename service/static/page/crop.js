/** A box on a picture, moved by mouse, touch and arrow keys: the part that is searched for. */

import { element } from "./dom.js";

const LEAST = 0.1; // of a side
const STEP = 0.05; // of an arrow key
const SETTLES_MS = 350; // after the last key

/** @typedef {[left: number, top: number, right: number, bottom: number]} Box in fractions */

/** @typedef {"move" | "nw" | "ne" | "sw" | "se"} Part of a box that is moved */

/** @type {[Part, string][]} */
const HANDLES = [
  ["move", "The part that is searched for; arrow keys move it"],
  ["nw", "Upper left corner of the part"],
  ["ne", "Upper right corner of the part"],
  ["sw", "Lower left corner of the part"],
  ["se", "Lower right corner of the part"],
];

/** @type {Readonly<Box>} */
const WHOLE = [0, 0, 1, 1];

/**
 * @param {string | null} text left,top,right,bottom
 * @returns {Box}
 */
export function boxOf(text) {
  const box = (text ?? "").split(",").map((side) => rounded(Number(side)));
  const [left, top, right, bottom] = box;
  const fits = box.length === 4 && 0 <= left && left < right && right <= 1;
  return fits && 0 <= top && top < bottom && bottom <= 1
    ? /** @type {Box} */ (box)
    : [...WHOLE];
}

/**
 * @param {Readonly<Box>} box
 * @returns {string | null} null for the whole picture
 */
export function textOf(box) {
  const sides = box.map(rounded);
  return sides.every((side, place) => side === WHOLE[place]) ? null : sides.join(",");
}

/** @param {number} side */
const rounded = (side) => Number(side.toFixed(3));

/**
 * The box moved, or with one of its corners moved, and kept within the picture.
 * @param {Readonly<Box>} box
 * @param {Part} part
 * @param {number} dx by how much to the right, in fractions
 * @param {number} dy by how much down
 * @returns {Box}
 */
export function moved([left, top, right, bottom], part, dx, dy) {
  if (part === "move") {
    const x = Math.min(Math.max(dx, -left), 1 - right);
    const y = Math.min(Math.max(dy, -top), 1 - bottom);
    return [left + x, top + y, right + x, bottom + y];
  }
  if (part.endsWith("w")) left = Math.min(Math.max(left + dx, 0), right - LEAST);
  else right = Math.max(Math.min(right + dx, 1), left + LEAST);
  if (part.startsWith("n")) top = Math.min(Math.max(top + dy, 0), bottom - LEAST);
  else bottom = Math.max(Math.min(bottom + dy, 1), top + LEAST);
  return [left, top, right, bottom];
}

/**
 * Where the box or a corner of it is, for screen readers: in percent from the left, and in words.
 * @param {Readonly<Box>} box
 * @param {Part} part
 */
export function placeOf(box, part) {
  const [left, top, right, bottom] = box.map((side) => Math.round(side * 100));
  if (part === "move") {
    const text = `${left}% to ${right}% from the left, ${top}% to ${bottom}% from the top`;
    return { now: left, text };
  }
  const x = part.endsWith("e") ? right : left;
  const y = part.startsWith("s") ? bottom : top;
  return { now: x, text: `${x}% from the left, ${y}% from the top` };
}

/** @type {Record<string, [number, number]>} */
const ARROWS = {
  ArrowLeft: [-STEP, 0],
  ArrowRight: [STEP, 0],
  ArrowUp: [0, -STEP],
  ArrowDown: [0, STEP],
};

/**
 * A box over a picture that fills its parent. Its handles are usable however thin picture and box
 * are: ask.css puts them beside a box that has no room for them.
 * @param {string | null} crop
 * @param {(crop: string | null) => void} settled called when the box has come to rest
 * @returns {HTMLElement}
 */
export function cropBox(crop, settled) {
  let box = boxOf(crop);
  let said = textOf(box);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const frame = element("div", { className: "crop" });
  const handles = HANDLES.map(([part, label]) => handle(part, label));
  frame.append(...handles);
  draw();
  return frame;

  function draw() {
    const [left, top, right, bottom] = box.map((side) => `${side * 100}%`);
    for (const [name, value] of Object.entries({ left, top, right, bottom })) {
      frame.style.setProperty(`--${name}`, value);
    }
    for (const [place, [part]] of HANDLES.entries()) {
      const { now, text } = placeOf(box, part);
      handles[place].setAttribute("aria-valuenow", String(now));
      handles[place].setAttribute("aria-valuetext", text);
    }
    // The whole picture cannot be moved, so that touching it scrolls the page.
    handles[0].style.touchAction = textOf(box) === null ? "auto" : "none";
  }

  function settle() {
    if (textOf(box) === said || !frame.isConnected) return;
    said = textOf(box);
    settled(said);
  }

  /**
   * @param {Part} part
   * @param {string} label
   */
  function handle(part, label) {
    const button = element("button", {
      type: "button",
      className: `handle ${part}`,
      role: "slider", // so that screen readers pass arrow keys on, and say where it is then
      "aria-label": label,
    });
    button.addEventListener("keydown", (event) => {
      const arrow = ARROWS[event.key];
      if (!arrow) return;
      event.preventDefault();
      box = moved(box, part, ...arrow);
      draw();
      clearTimeout(timer);
      timer = setTimeout(settle, SETTLES_MS);
    });
    button.addEventListener("pointerdown", (down) => {
      if (down.button) return; // not the main one
      down.preventDefault();
      button.focus();
      button.setPointerCapture(down.pointerId);
      const [start, { width, height }] = [box, frame.getBoundingClientRect()];
      /** @param {PointerEvent} move */
      const follow = (move) => {
        const dx = (move.clientX - down.clientX) / width;
        const dy = (move.clientY - down.clientY) / height;
        box = moved(start, part, dx, dy);
        draw();
      };
      button.addEventListener("pointermove", follow);
      const end = () => {
        button.removeEventListener("pointermove", follow);
        settle();
      };
      button.addEventListener("lostpointercapture", end, { once: true });
    });
    return button;
  }
}
