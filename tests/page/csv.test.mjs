import assert from "node:assert/strict";
import { test } from "node:test";

import { csv } from "../../service/static/page/csv.js";

test("a table has the first row's columns, and cells are quoted where they must be", () => {
  const rows = [
    { name: "a,b", said: 'a "word"', count: 3, none: null },
    { name: "two\nlines", said: "plain", count: -1, none: false },
  ];
  assert.equal(
    csv(rows),
    'name,said,count,none\r\n"a,b","a ""word""",3,\r\n"two\nlines",plain,-1,false\r\n',
  );
  assert.equal(csv([]), "");
});

for (const first of ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"]) {
  test(`a text that begins with ${JSON.stringify(first)} is no formula`, () => {
    const cell = csv([{ uri: `${first}1+1` }]).slice("uri\r\n".length);
    assert.match(cell, /^"?'/);
  });
}

test("numbers keep their sign, and texts with a sign inside are left as they are", () => {
  assert.equal(csv([{ a: -3, b: "a-b=c" }]), "a,b\r\n-3,a-b=c\r\n");
});
