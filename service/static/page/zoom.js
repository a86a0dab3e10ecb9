/** Zoom and pan that several pictures share. */

/**
 * @typedef {object} Zoom
 * @property {number} scale 1 shows the whole picture
 * @property {number} x place of the picture's left edge, in widths of its frame
 * @property {number} y place of its upper edge, in heights
 */

/** @type {Readonly<Zoom>} */
export const WHOLE = Object.freeze({ scale: 1, x: 0, y: 0 });
const MOST = 16;
export const STEP = 1.25;

/**
 * @param {Readonly<Zoom>} zoom
 * @param {number} factor
 * @param {number} [cx] the point that stays where it is, in widths of the frame
 * @param {number} [cy]
 * @returns {Zoom}
 */
export function zoomed({ scale, x, y }, factor, cx = 0.5, cy = 0.5) {
  const now = Math.min(Math.max(scale * factor, 1), MOST);
  return within({ scale: now, x: cx - ((cx - x) * now) / scale, y: cy - ((cy - y) * now) / scale });
}

/**
 * @param {Readonly<Zoom>} zoom
 * @param {number} dx in widths of the frame
 * @param {number} dy
 */
export const panned = ({ scale, x, y }, dx, dy) => within({ scale, x: x + dx, y: y + dy });

/**
 * Keeps the frame full.
 * @param {Zoom} zoom
 * @returns {Zoom}
 */
function within({ scale, x, y }) {
  const inside = (/** @type {number} */ edge) => Math.min(Math.max(edge, 1 - scale), 0);
  return { scale, x: inside(x), y: inside(y) };
}

/**
 * Wheel and drag on a frame.
 * @param {HTMLElement} frame
 * @param {(change: (zoom: Zoom) => Zoom) => void} change
 */
export function listenOn(frame, change) {
  frame.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { left, top, width, height } = frame.getBoundingClientRect();
      const [cx, cy] = [(event.clientX - left) / width, (event.clientY - top) / height];
      change((zoom) => zoomed(zoom, event.deltaY < 0 ? STEP : 1 / STEP, cx, cy));
    },
    { passive: false },
  );
  frame.addEventListener("pointerdown", (event) => {
    event.preventDefault(); // the browser would drag the picture itself
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => {
    if (!frame.hasPointerCapture(event.pointerId)) return;
    const { width, height } = frame.getBoundingClientRect();
    change((zoom) => panned(zoom, event.movementX / width, event.movementY / height));
  });
}
