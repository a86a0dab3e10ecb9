import assert from "node:assert/strict";
import { test } from "node:test";

import { followed, panned, wheeled, WHOLE, zoomed } from "../../service/static/page/zoom.js";

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

test("a wheel zooms by how far it turns, however many events tell so", () => {
  const factor = (deltaY, ctrlKey = false) => wheeled({ deltaY, ctrlKey });
  assert.ok(Math.abs(factor(-2) ** 50 - factor(-100)) < 1e-9);
  assert.ok(factor(-100) > 1.2 && factor(-100) < 1.3);
  assert.ok(Math.abs(factor(-100) * factor(100) - 1) < 1e-9);
  assert.equal(factor(-0), 1);
  assert.ok(factor(-5, true) > factor(-5));
});

test("what lies under two fingers stays under them", () => {
  const frame = { width: 200, height: 100 };
  const before = zoomed(WHOLE, 4);
  const from = [[60, 40], [120, 50]];
  const to = [[40, 45], [150, 50]];
  const now = followed(before, from, to, frame);
  assert.ok(now.scale > before.scale);
  /** Where in the picture the middle of two points lies. */
  const under = ({ scale, x, y }, [[ax, ay], [bx, by]]) => [
    ((ax + bx) / 2 / frame.width - x) / scale,
    ((ay + by) / 2 / frame.height - y) / scale,
  ];
  for (const axis of [0, 1]) {
    assert.ok(Math.abs(under(now, to)[axis] - under(before, from)[axis]) < 1e-9);
  }
  const stretched = Math.hypot(110, 5) / Math.hypot(60, 10);
  assert.ok(Math.abs(now.scale / before.scale - stretched) < 1e-9);
  assert.deepEqual(followed(before, [[60, 40]], [[70, 40]], frame), panned(before, 0.05, 0));
});
