import assert from "node:assert/strict";
import test from "node:test";

import { addressOf, askedOf, hasQuery, NOTHING } from "../../service/static/page/address.js";

const METHODS = ["codes", "pixels", "thumbs"];
const CODE = "0f".repeat(32);

/** @param {string} query */
const read = (query) => askedOf(query, METHODS, true);

test("what is asked is read back from its address", () => {
  const filters = { label: "a & b", folder: "photos/é", once: true };
  for (const asked of [
    { ...NOTHING, ...filters, view: "compare", id: 7, crop: "0,0.25,0.5,1", radius: 0 },
    { ...NOTHING, code: CODE, shows: "cat", radius: 256, methods: ["codes", "thumbs"] },
    { ...NOTHING, ...filters, id: 0, like: [1, 2], unlike: [3] },
    { ...NOTHING, view: "duplicates", radius: 9 },
  ]) {
    assert.deepEqual(read(addressOf(asked)), asked);
  }
  assert.equal(addressOf({ ...NOTHING }), "");
  assert.deepEqual(read(""), NOTHING);
});

test("what an address says wrongly is left out", () => {
  const wrong = "?view=x&id=-1&code=zz&crop=a,b&radius=257&like=1,x,,2,1&unlike=2&label=&folder=&shows=&x=1";
  assert.deepEqual(read(wrong), { ...NOTHING, like: [1, 2] });
  for (const crop of ["0,0,5,5", "0,0,1,1", "0.5,0.5,0.5001,1", "1.2.3,0,1,1"]) {
    assert.equal(addressOf(read(`?id=7&crop=${crop}`)), "?id=7");
  }
  for (const methods of ["method=codes", "method=codes&method=codes", "method=codes&method=x"]) {
    assert.equal(addressOf(read(`?view=compare&id=7&${methods}`)), "?view=compare&id=7");
  }
});

test("what means nothing beside the rest is neither read nor written", () => {
  const part = "crop=0,0,0.5,0.5";
  for (const [said, meant] of [
    [`?${part}&radius=40&shows=cat`, ""],
    [`?code=${CODE}&${part}`, `?code=${CODE}`],
    [`?id=7&code=${CODE}&shows=cat`, "?id=7"],
    [`?id=7&${part}&radius=40&like=3`, "?id=7&like=3"],
    [`?code=${CODE}&shows=cat&label=dog`, `?code=${CODE}&label=dog`],
    [`?code=${CODE}&shows=cat&unlike=3`, `?code=${CODE}&unlike=3`],
    ["?view=gallery&id=7&radius=40", "?view=gallery&id=7"],
    ["?view=duplicates&like=3&radius=40", "?view=duplicates&radius=40&like=3"],
  ]) {
    assert.equal(addressOf(read(said)), meant);
    const all = Object.fromEntries(new URLSearchParams(said));
    const like = all.like ? [3] : [];
    const unlike = all.unlike ? [3] : [];
    assert.equal(addressOf({ ...NOTHING, id: null, ...all, like, unlike }), meant);
  }
  assert.equal(addressOf(askedOf(`?id=7&${part}`, METHODS, false)), "?id=7"); // no pictures
});

test("a code may be written in capitals", () => {
  assert.equal(read(`?code=${CODE.toUpperCase()}`).code, CODE);
});

test("examples alone are a query", () => {
  assert.ok(hasQuery({ ...NOTHING, unlike: [4] }));
  assert.ok(!hasQuery({ ...NOTHING, label: "cat" }));
});
