import assert from "node:assert/strict";
import test from "node:test";

import { counted, distanceIn, nameOf, pathOf, size, withoutJson } from "../../service/static/page/words.js";

test("uris are shown as paths, and what is not UTF-8 as it is", () => {
  assert.equal(pathOf("photos/a%20b.jpg"), "photos/a b.jpg");
  assert.equal(pathOf("photos/%ff.jpg"), "photos/%ff.jpg");
  assert.equal(nameOf("photos/x%2Fy/a.jpg"), "a.jpg");
  assert.match(pathOf(`+/${"a".repeat(64)}`), /^bytes with SHA-256 a{64}$/);
});

test("distances of squared units are shown by their roots", () => {
  assert.equal(distanceIn(40, "bits"), "40 bits");
  assert.equal(distanceIn(1_000_000, "squared grey levels"), "1,000 grey levels");
  assert.equal(distanceIn(1, "bits"), "1 bit");
  assert.equal(distanceIn(2, "squared grey levels"), "1 grey level");
});

test("sums of distances are none, and may be negative", () => {
  assert.equal(distanceIn(-56, ""), "");
});

test("sizes and numbers are written as people write them", () => {
  assert.equal(size(0), "0 bytes");
  assert.equal(size(1_600_000), "1.6 MB");
  assert.equal(size(153_600_000), "154 MB");
  assert.equal(counted(1, "picture"), "1 picture");
  assert.equal(counted(2000, "picture"), "2,000 pictures");
});

test("an answer that is no JSON comes from a proxy", () => {
  assert.match(withoutJson(413), /too large/);
  assert.match(withoutJson(418), /status 418/);
});
