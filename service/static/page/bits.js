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
 * The number of bits in which two codes differ.
 * @param {string} first
 * @param {string} second
 */
export function distanceOf(first, second) {
  let sum = 0;
  for (let place = 0; place < BITS / 4; place++) {
    sum += ONES[parseInt(first[place], 16) ^ parseInt(second[place], 16)];
  }
  return sum;
}

const ONES = [0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4]; // of each hexadecimal digit
