import assert from "node:assert/strict";
import test from "node:test";

import { NOTHING } from "../../service/static/page/address.js";
import { comparisonOf, searchOf } from "../../service/static/page/question.js";

const CODE = "0f".repeat(32);
const picture = new Blob(["bytes"]);
const part = { ...NOTHING, crop: "0,0,0.5,1" };

test("a search sends the picture until its code is known, which is that of the part", () => {
  const first = searchOf(part, picture, { k: 60 });
  assert.equal(first.body, picture);
  assert.match(first.path, /crop=/);
  const next = searchOf({ ...part, code: CODE, label: "cat" }, picture, { k: 60, offset: 60 });
  assert.deepEqual(JSON.parse(next.body), { code: CODE });
  assert.equal(next.type, "application/json");
  assert.doesNotMatch(next.path, /crop=/);
});

test("a comparison needs the picture, whether its code is known or not", () => {
  const { path, body } = comparisonOf({ ...part, code: CODE }, picture, 20);
  assert.equal(body, picture);
  assert.match(path, /crop=/);
});

test("a part of an image of the gallery says which thumbnail is sent", () => {
  const { body, thumbnail } = searchOf({ ...part, id: 7 }, picture, { k: 60 });
  assert.equal(body, picture);
  assert.equal(thumbnail, "/v1/images/7/thumbnail");
  assert.equal(searchOf(part, picture, { k: 60 }).thumbnail, undefined);
});
