import assert from "node:assert/strict";
import test from "node:test";

import { boxOf, moved, placeOf, textOf } from "../../service/static/page/crop.js";

test("a box that is none is the whole picture, which needs no text", () => {
  for (const text of [null, "", "0,0,1", "0.5,0,0.5,1", "0.5,0,0.5001,1", "0,0,2,1"]) {
    assert.deepEqual(boxOf(text), [0, 0, 1, 1]);
  }
  assert.equal(textOf([0, 0, 1, 1]), null);
  assert.equal(textOf(boxOf("0.25,0,0.75,1")), "0.25,0,0.75,1");
});

test("a box stays within the picture and keeps its size when it is moved", () => {
  assert.deepEqual(moved([0.25, 0.5, 0.5, 1], "move", 9, 9), [0.75, 0.5, 1, 1]);
  assert.deepEqual(moved([0.25, 0.5, 0.5, 1], "move", -9, -9), [0, 0, 0.25, 0.5]);
});

test("a corner stops before the opposite one", () => {
  assert.deepEqual(moved([0, 0, 1, 1], "se", -9, -9), [0, 0, 0.1, 0.1]);
  assert.deepEqual(moved([0, 0, 1, 1], "nw", 0.5, -1), [0.5, 0, 1, 1]);
});

test("screen readers are told where the box and each corner are", () => {
  const box = [0.1, 0.25, 0.604, 1];
  const move = "10% to 60% from the left, 25% to 100% from the top";
  assert.deepEqual(placeOf(box, "move"), { now: 10, text: move });
  for (const [part, x, y] of [["nw", 10, 25], ["ne", 60, 25], ["sw", 10, 100], ["se", 60, 100]]) {
    assert.deepEqual(placeOf(box, part), { now: x, text: `${x}% from the left, ${y}% from the top` });
  }
});
