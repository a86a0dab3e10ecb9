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
const SWIPE = 40; // pixels
// Pixels of the wheel that zoom e times: a notch of a mouse is about 100, and an event of a trackpad few.
const WHEEL = 400;
const PINCH = 100; // by fingers on a trackpad, which browsers report as a wheel with Ctrl

/** @typedef {readonly [x: number, y: number]} Point in pixels from the frame's upper left corner */

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
 * Keeps what lies under a pointer or under two fingers there while they move.
 * @param {Readonly<Zoom>} zoom
 * @param {Point[]} from
 * @param {Point[]} to
 * @param {{width: number, height: number}} frame
 */
export function followed(zoom, from, to, { width, height }) {
  const [[x, y], [nowX, nowY]] = [middle(from), middle(to)];
  const larger = zoomed(zoom, spread(to) / spread(from), x / width, y / height);
  return panned(larger, (nowX - x) / width, (nowY - y) / height);
}

/**
 * The factor of a wheel's event; 1 if it moves sideways alone.
 * @param {{deltaY: number, ctrlKey: boolean}} event
 */
export const wheeled = ({ deltaY, ctrlKey }) => Math.exp(-deltaY / (ctrlKey ? PINCH : WHEEL));

/** @param {Point[]} points */
const middle = (points) =>
  [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);

/** @param {Point[]} points */
const spread = ([first, second = first]) =>
  Math.hypot(second[0] - first[0], second[1] - first[1]) || 1;

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
 * Wheel, drag, pinch and swipe on a frame.
 * @param {HTMLElement} frame
 * @param {(change: (zoom: Zoom) => Zoom) => void} change
 * @param {(by: number) => void} swiped called with 1 for the next, with -1 for the one before
 */
export function listenOn(frame, change, swiped) {
  /** @type {Map<number, Point>} */
  const held = new Map(); // by pointer
  /** @type {Point | null} */
  let start = null; // of a swipe
  const pointOf = (/** @type {MouseEvent} */ { clientX, clientY }) => {
    const { left, top } = frame.getBoundingClientRect();
    return /** @type {Point} */ ([clientX - left, clientY - top]);
  };
  frame.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { width, height } = frame.getBoundingClientRect();
      const [x, y] = pointOf(event);
      change((zoom) => zoomed(zoom, wheeled(event), x / width, y / height));
    },
    { passive: false },
  );
  frame.addEventListener("pointerdown", (event) => {
    if (event.button) return; // not the main one
    event.preventDefault(); // the browser would drag the picture itself
    frame.setPointerCapture(event.pointerId);
    held.set(event.pointerId, pointOf(event));
    start = held.size === 1 && event.pointerType !== "mouse" ? pointOf(event) : null;
  });
  frame.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId)) return;
    const from = [...held.values()];
    held.set(event.pointerId, pointOf(event));
    change((zoom) => followed(zoom, from, [...held.values()], frame.getBoundingClientRect()));
  });
  frame.addEventListener("pointerup", (event) => {
    held.delete(event.pointerId);
    if (!start) return;
    const [x, y] = pointOf(event);
    const [dx, dy] = [x - start[0], y - start[1]];
    if (Math.abs(dx) > Math.max(SWIPE, 2 * Math.abs(dy))) swiped(-Math.sign(dx));
  });
  frame.addEventListener("pointercancel", (event) => held.delete(event.pointerId)); // it scrolls
}
