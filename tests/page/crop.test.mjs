import assert from "node:assert/strict";
import test from "node:test";

import { boxOf, moved, textOf } from "../../service/static/page/crop.js";

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
