import assert from "node:assert/strict";
import test from "node:test";

import { bitsOf, differing, flipped, isWithin, numbersOf } from "../../service/static/page/bits.js";

const code = "8001" + "0".repeat(60);

test("the highest bit of each byte comes first", () => {
  const set = bitsOf(code).flatMap((bit, place) => (bit ? [place] : []));
  assert.deepEqual(set, [0, 15]);
});

test("a flipped bit is the only difference, and flips back", () => {
  for (const bit of [0, 1, 15, 100, 255]) {
    const other = flipped(code, bit);
    assert.deepEqual([...differing(code, other)], [bit]);
    assert.notEqual(bitsOf(other)[bit], bitsOf(code)[bit]);
    assert.equal(flipped(other, bit), code);
  }
});

test("a code is within a distance of those that differ from it in no more bits", () => {
  let other = code;
  for (const [count, bit] of [0, 1, 2, 31, 32, 63, 100, 255].entries()) {
    const [first, second] = [code, other].map(numbersOf);
    assert.ok(isWithin(first, second, count));
    assert.ok(!isWithin(first, second, count - 1));
    other = flipped(other, bit);
  }
  assert.ok(!isWithin(...["0", "f"].map((digit) => numbersOf(digit.repeat(64))), 255));
});
