import assert from "node:assert/strict";
import { test } from "node:test";

import { stagesOf } from "../../service/static/page/timing.js";

test("the stages of Server-Timing are read with their milliseconds", () => {
  assert.deepEqual(stagesOf("wait;dur=0.148, search;dur=38.894"), { wait: 0.148, search: 38.894 });
  assert.deepEqual(stagesOf(null), {});
});
