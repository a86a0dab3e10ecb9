import assert from "node:assert/strict";
import { test } from "node:test";

import { panned, WHOLE, zoomed } from "../../service/static/page/zoom.js";

test("the point under the pointer stays where it is", () => {
  const [cx, cy] = [0.25, 0.75];
  const before = zoomed(WHOLE, 2);
  const { scale, x, y } = zoomed(before, 1.5, cx, cy);
  assert.equal(scale, 3);
  assert.equal((cx - x) / scale, (cx - before.x) / before.scale);
  assert.equal((cy - y) / scale, (cy - before.y) / before.scale);
});

test("the frame stays full", () => {
  assert.deepEqual(panned(zoomed(WHOLE, 2), 9, -9), { scale: 2, x: 0, y: -1 });
  assert.deepEqual(zoomed(panned(zoomed(WHOLE, 2), 9, -9), 0.1), { scale: 1, x: 0, y: 0 });
});

test("a picture is enlarged at most sixteen times", () => {
  assert.equal(zoomed(WHOLE, 1000).scale, 16);
});
