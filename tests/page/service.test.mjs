import assert from "node:assert/strict";
import test from "node:test";

globalThis.document = { documentElement: { dataset: {} } };
const { ask, pause, Problem } = await import("../../service/static/page/service.js");
const { prepared } = await import("../../service/static/page/pictures.js");

/** @param {() => Promise<Response>} answer */
async function problemOf(answer) {
  globalThis.fetch = answer;
  return ask("/v1/gallery").then(assert.fail, (error) => error);
}

test("a problem is said in words, and whether it may pass", async () => {
  for (const [status, body, message, mayPass] of [
    [422, { detail: "the image is damaged", code: "invalid-image" }, "The image is damaged.", false],
    [404, { message: "no route" }, "A proxy answered in place of the service, with status 404.", false],
    [403, null, "A proxy answered in place of the service, with status 403.", false],
    [429, { detail: "too often" }, "Too often.", true],
    [502, { error: {} }, "The service is not available; try again in a moment.", true],
  ]) {
    const error = await problemOf(async () => Response.json(body, { status }));
    assert.ok(error instanceof Problem);
    assert.deepEqual([error.message, error.mayPass], [message, mayPass]);
    assert.equal(error.code, body?.code ?? null);
  }
  const error = await problemOf(() => Promise.reject(new TypeError("Failed to fetch")));
  assert.deepEqual([error.message, error.mayPass], ["The service cannot be reached.", true]);
});

test("a file is read before it is sent, and one that cannot be read is a problem of its own", async () => {
  const file = new Blob(["bytes"], { type: "image/png" });
  const read = await prepared(file);
  assert.notEqual(read, file);
  assert.deepEqual([await read.text(), read.type], ["bytes", "image/png"]);
  file.arrayBuffer = () => Promise.reject(new DOMException("gone", "NotReadableError"));
  await assert.rejects(prepared(file), { message: /^The file cannot be read; / });
});

test("a pause ends when its view is left, and does not begin afterwards", async () => {
  const controller = new AbortController();
  await pause(1, controller.signal);
  const late = pause(60_000, controller.signal);
  controller.abort();
  await assert.rejects(late, { name: "AbortError" });
  await assert.rejects(pause(1, controller.signal), { name: "AbortError" });
});
