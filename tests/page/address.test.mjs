import assert from "node:assert/strict";
import test from "node:test";

import { addressOf, askedOf, hasQuery, NOTHING } from "../../service/static/page/address.js";

test("what is asked is read back from its address", () => {
  const asked = {
    view: "compare",
    id: 7,
    code: "0f".repeat(32),
    crop: "0,0.25,0.5,1",
    label: "a & b",
    folder: "photos/é",
    radius: 0,
    methods: ["codes", "pixels"],
    like: [1, 2],
    unlike: [3],
    once: true,
  };
  assert.deepEqual(askedOf(addressOf(asked)), asked);
  assert.equal(addressOf({ ...NOTHING }), "");
  assert.deepEqual(askedOf(""), NOTHING);
});

test("what an address says wrongly is left out", () => {
  const wrong = "?view=x&id=-1&code=zz&crop=a,b&radius=1e9&like=1,x,,2";
  assert.deepEqual(askedOf(wrong), { ...NOTHING, like: [1, 2] });
});

test("examples alone are a query", () => {
  assert.ok(hasQuery({ ...NOTHING, unlike: [4] }));
  assert.ok(!hasQuery({ ...NOTHING, label: "cat" }));
});
