/** Codes drawn as squares, the bits of the picture apart from those of its meaning. */

import { BITS, bitsOf } from "./bits.js";
import { element } from "./dom.js";

/** @type {Record<string, number>} */
const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -16, ArrowDown: 16 }; // in rows of 16

/**
 * The number of differing bits in a sentence, of each part too.
 * @param {Set<number>} bits that differ
 * @param {number | null} pictureBits
 */
export function differenceIn(bits, pictureBits) {
  const whole = `${bits.size} of ${BITS} bits ${bits.size === 1 ? "differs" : "differ"}`;
  if (pictureBits === null) return `${whole}.`;
  const picture = [...bits].filter((bit) => bit < pictureBits).length;
  const meaning = `${bits.size - picture} of the meaning’s ${BITS - pictureBits}`;
  return `${whole}: ${picture} of the picture’s ${pictureBits}, ${meaning}.`;
}

/**
 * The squares of a code, full for 1 and empty for 0.
 * @param {string} label
 * @param {number | null} pictureBits how many of the first bits encode the picture itself; null
 *   if the model does not divide them so
 * @param {((bit: number) => void) | null} flip called for a square that is pressed; null for a
 *   drawing alone
 */
export function squares(label, pictureBits, flip) {
  /** @type {HTMLElement[]} */
  const cells = [];
  /**
   * @param {string} name
   * @param {number} count
   */
  const part = (name, count) => {
    const bits = Array.from({ length: count }, (_, place) => {
      const properties = { className: "bit", title: `Bit ${place + 1} of ${name}` };
      if (!flip) return element("span", properties);
      return element("button", { ...properties, type: "button", tabIndex: cells.length + place ? -1 : 0 });
    });
    cells.push(...bits);
    const caption = `${name[0].toUpperCase()}${name.slice(1)}: ${count} bits`;
    return element("div", {}, caption, element("div", { className: "bits" }, ...bits));
  };
  const parts =
    pictureBits === null
      ? [part("the code", BITS)]
      : [part("the picture", pictureBits), part("its meaning", BITS - pictureBits)];
  const role = flip ? "group" : "img";
  const root = element("div", { className: "code", role, "aria-label": label }, ...parts);
  if (flip) listen(root, cells, flip);
  return { root, show };

  /**
   * Draw a code, with a dot in the marked squares.
   * @param {string} code
   * @param {Set<number>} marked
   */
  function show(code, marked) {
    for (const [bit, value] of bitsOf(code).entries()) {
      const cell = cells[bit];
      cell.classList.toggle("one", value === 1);
      cell.classList.toggle("marked", marked.has(bit));
      if (!flip) continue;
      cell.ariaPressed = String(value === 1);
      cell.ariaLabel = `${cell.title}${marked.has(bit) ? ", flipped" : ""}`;
    }
  }
}

/**
 * Squares are one stop of the tabulator key; arrow keys go from one to the next.
 * @param {HTMLElement} root
 * @param {HTMLElement[]} cells by bit
 * @param {(bit: number) => void} flip
 */
function listen(root, cells, flip) {
  /** @param {Event} event */
  const bitOf = ({ target }) => cells.indexOf(/** @type {HTMLElement} */ (target));
  root.addEventListener("click", (event) => {
    if (bitOf(event) >= 0) flip(bitOf(event));
  });
  root.addEventListener("focusin", (event) => {
    for (const cell of cells) cell.tabIndex = cell === event.target ? 0 : -1;
  });
  root.addEventListener("keydown", (event) => {
    const next = cells[bitOf(event) + STEPS[event.key]];
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
}
