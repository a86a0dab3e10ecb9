import assert from "node:assert/strict";
import test from "node:test";

import { bitsOf, distanceOf, flipped } from "../../service/static/page/bits.js";

const code = "8001" + "0".repeat(60);

test("the highest bit of each byte comes first", () => {
  const set = bitsOf(code).flatMap((bit, place) => (bit ? [place] : []));
  assert.deepEqual(set, [0, 15]);
});

test("a flipped bit is the only difference, and flips back", () => {
  for (const bit of [0, 1, 15, 100, 255]) {
    const other = flipped(code, bit);
    assert.equal(distanceOf(code, other), 1);
    assert.notEqual(bitsOf(other)[bit], bitsOf(code)[bit]);
    assert.equal(flipped(other, bit), code);
  }
});
