import assert from "node:assert/strict";
import { test } from "node:test";

import { crumbsOf, memory } from "../../service/static/page/holdings.js";

test("a folder's path is cut at each kind of separator", () => {
  assert.deepEqual(crumbsOf("photos/a%2Fb/x.tar!/in#3"), [
    { folder: "photos", name: "photos" },
    { folder: "photos/a%2Fb", name: "a/b" },
    { folder: "photos/a%2Fb/x.tar", name: "x.tar" },
    { folder: "photos/a%2Fb/x.tar!/in", name: "in" },
    { folder: "photos/a%2Fb/x.tar!/in#3", name: "3" },
  ]);
  assert.deepEqual(crumbsOf(""), []);
});

test("memory is shown of what the gallery has", () => {
  const ivf = { kind: "ivf", loaded: true, image_bytes: 8.04 };
  const unloaded = { kind: "buckets", loaded: false, image_bytes: 90 };
  const described = { images: 1000, methods: ["codes", "pixels"], indexes: [ivf, unloaded] };
  assert.deepEqual(memory(described, true), [
    { name: "Codes: 32 bytes a picture", amount: "32 kB", share: 32 / 3072 },
    { name: "Index ivf, beside the codes: 8 bytes a picture", amount: "8.0 kB", share: 8.04 / 3072 },
    { name: "Pixels: 3,072 bytes a picture", amount: "3.1 MB", share: 1 },
  ]);
  assert.equal(memory({ ...described, indexes: [] }, false)[0].share, 1);
});
