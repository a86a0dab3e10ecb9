/** Codes: 256 bits, written as 64 hexadecimal digits, the highest bit of each byte first. */

export const BITS = 256;

/**
 * The bits of a code, each 0 or 1.
 * @param {string} hex
 * @returns {number[]}
 */
export function bitsOf(hex) {
  return [...hex].flatMap((digit) => {
    const value = parseInt(digit, 16);
    return [(value >> 3) & 1, (value >> 2) & 1, (value >> 1) & 1, value & 1];
  });
}

/**
 * The code with one bit flipped.
 * @param {string} hex
 * @param {number} bit
 */
export function flipped(hex, bit) {
  const place = bit >> 2;
  const digit = parseInt(hex[place], 16) ^ (8 >> (bit & 3));
  return hex.slice(0, place) + digit.toString(16) + hex.slice(place + 1);
}

/**
 * The numbers of the bits in which two codes differ.
 * @param {string} first
 * @param {string} second
 * @returns {Set<number>}
 */
export function differing(first, second) {
  const others = bitsOf(second);
  return new Set(bitsOf(first).flatMap((bit, place) => (bit === others[place] ? [] : [place])));
}

/**
 * A code as numbers of 32 bits, which are compared fast.
 * @param {string} hex
 */
export const numbersOf = (hex) => Uint32Array.from(hex.match(/.{8}/g) ?? [], (part) => parseInt(part, 16));

/**
 * Whether two codes differ in no more than some bits.
 * @param {Uint32Array} first
 * @param {Uint32Array} second
 * @param {number} most
 */
export function isWithin(first, second, most) {
  let sum = 0;
  for (let place = 0; place < first.length && sum <= most; place++) sum += ones(first[place] ^ second[place]);
  return sum <= most;
}

/**
 * The number of ones among 32 bits, summed up in ever wider groups.
 * @param {number} bits
 */
function ones(bits) {
  const pairs = bits - ((bits >>> 1) & 0x55555555);
  const fours = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
