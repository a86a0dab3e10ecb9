import assert from "node:assert/strict";
import { test } from "node:test";

import { curlOf, pythonOf } from "../../service/static/page/copy.js";

const SERVICE = "https://pictures.example/search";
const blob = new Blob(["bytes"]);

test("a picture's bytes are a file in curl's command", () => {
  const question = { path: "/v1/search?label=it%27s&k=60", body: blob, type: "application/octet-stream" };
  assert.equal(
    curlOf(SERVICE, question),
    `curl 'https://pictures.example/search/v1/search?label=it%27s&k=60' \\
  -H 'Content-Type: application/octet-stream' \\
  --data-binary @picture.jpg`,
  );
});

test("JSON is quoted for the shell", () => {
  const question = { path: "/v1/search?k=1", body: `{"code":"it's"}`, type: "application/json" };
  assert.match(curlOf(SERVICE, question), /--data '\{"code":"it'\\''s"\}'$/);
});

test("a search by a picture becomes a call of the client", () => {
  const path = "/v1/search?label=cat&uri_prefix=a%2F&crop=0%2C0%2C0.5%2C1&k=60&radius=51&histogram=true";
  assert.equal(
    pythonOf(SERVICE, { path, body: blob, type: "application/octet-stream" }),
    `import hashsearch as hs

with hs.Client("https://pictures.example/search") as client:
    for hit in client.search("picture.jpg", k=60, radius=51, label="cat", uri_prefix="a/", crop="0,0,0.5,1"):
        print(hit.distance, hit.closeness, hit.label, hit.uri)`,
  );
});

test("a comparison becomes a search by each method", () => {
  const body = JSON.stringify({ id: 0, like: [3], unlike: [4, 5] });
  assert.equal(
    pythonOf(SERVICE, { path: "/v1/compare?k=20&method=codes&method=pixels", body, type: "application/json" }),
    `import hashsearch as hs

with hs.Client("https://pictures.example/search") as client:
    for method in ["codes","pixels"]:
        for hit in client.search(0, k=20, like=[3], unlike=[4,5], method=method):
            print(method, hit.distance, hit.closeness, hit.label, hit.uri)`,
  );
});

test("examples alone are searched for without a query", () => {
  const question = { path: "/v1/search?k=60", body: '{"like":[3]}', type: "application/json" };
  assert.match(pythonOf(SERVICE, question), /client\.search\(k=60, like=\[3\]\)/);
});

test("the thumbnail of which a part is searched for is fetched first", () => {
  const question = {
    path: "/v1/search?crop=0%2C0%2C0.5%2C1&k=60",
    body: blob,
    type: "application/octet-stream",
    thumbnail: "/v1/images/7/thumbnail",
  };
  assert.equal(
    curlOf(SERVICE, question),
    `curl --silent 'https://pictures.example/search/v1/images/7/thumbnail' |
curl 'https://pictures.example/search/v1/search?crop=0%2C0%2C0.5%2C1&k=60' \\
  -H 'Content-Type: application/octet-stream' \\
  --data-binary @-`,
  );
  assert.equal(
    pythonOf(SERVICE, question),
    `import urllib.request

import hashsearch as hs

with urllib.request.urlopen("https://pictures.example/search/v1/images/7/thumbnail") as response:
    picture = response.read()

with hs.Client("https://pictures.example/search") as client:
    for hit in client.search(picture, k=60, crop="0,0,0.5,1"):
        print(hit.distance, hit.closeness, hit.label, hit.uri)`,
  );
});
