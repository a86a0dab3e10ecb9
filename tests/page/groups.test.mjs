import assert from "node:assert/strict";
import { test } from "node:test";

import { rowsOf, wordOf } from "../../service/static/page/groups.js";

test("a group's rows have the columns of an exported list", () => {
  const file = { id: 7, uri: "%C3%A4%20b.jpg", label: null, width: 4, height: 3, size: 9, distance: 0, keep: true };
  assert.deepEqual(rowsOf(2, [file]), [
    { group: 2, keep: 1, distance: 0, path: "ä b.jpg", width: 4, height: 3, size: 9, id: 7 },
  ]);
});

test("distances up to each limit have its word", () => {
  const closeness = { same: 12, near: 43, alike: 51 };
  const words = [0, 12, 13, 43, 44, 51, 52].map((distance) => wordOf(distance, closeness));
  assert.deepEqual(words, ["same", "same", "near", "near", "alike", "alike", "far"]);
  assert.equal(wordOf(0, null), null);
});
