/** From what the page shows to the request that asks for it. */

/** @typedef {import("./address.js").Asked} Asked */

/**
 * @typedef {object} Question
 * @property {string} path
 * @property {BodyInit} body
 * @property {string} type of the body
 * @property {string} [thumbnail] path of the gallery's thumbnail that the body is
 */

/**
 * The request of a search by code. A picture, or a part of one, is sent as long as its code is not
 * known.
 * @param {Asked} asked
 * @param {Blob | null} picture the query, if it is no image of the gallery
 * @param {{k: number, offset?: number, histogram?: boolean}} page
 * @returns {Question}
 */
export function searchOf(asked, picture, { k, offset = 0, histogram = false }) {
  const sent = asked.code === null ? picture : null;
  const said = chosen(asked, sent);
  said.set("k", String(k));
  if (offset) said.set("offset", String(offset));
  if (asked.radius !== null && !hasExamples(asked)) said.set("radius", String(asked.radius));
  if (histogram && !hasExamples(asked)) said.set("histogram", "true");
  return { path: `/v1/search?${said}`, ...bodyOf(asked, sent) };
}

/**
 * The hits without the image of the gallery that is the query, of which a part may be sent.
 * @param {{asked: Asked}} entry
 * @param {import("./tiles.js").Hit[]} hits
 */
export const others = ({ asked }, hits) => hits.filter(({ id }) => id !== asked.id);

/**
 * The request of a comparison.
 * @param {Asked} asked
 * @param {Blob | null} picture
 * @param {number} k
 * @returns {Question}
 */
export function comparisonOf(asked, picture, k) {
  const said = chosen(asked, picture);
  said.set("k", String(k));
  for (const method of asked.methods) said.append("method", method);
  return { path: `/v1/compare?${said}`, ...bodyOf(asked, picture) };
}

/**
 * Whether the service is given the query's pixels, and not its code alone.
 * @param {Asked} asked
 * @param {Blob | null} picture
 */
export const hasPixels = (asked, picture) =>
  isSent(asked, picture) || asked.id !== null || asked.code === null;

/** @param {Asked} asked */
export const hasExamples = ({ like, unlike }) => like.length + unlike.length > 0;

/**
 * @param {Asked} asked
 * @param {Blob | null} picture
 */
function chosen(asked, picture) {
  const said = new URLSearchParams({ codes: "true" }); // drawn where pictures are late
  if (asked.label !== null) said.set("label", asked.label);
  if (asked.folder !== null) said.set("uri_prefix", asked.folder);
  if (asked.crop !== null && isSent(asked, picture)) said.set("crop", asked.crop);
  return said;
}

/**
 * Whether the picture itself is the request's body. With examples, its code is sent.
 * @param {Asked} asked
 * @param {Blob | null} picture
 * @returns {picture is Blob}
 */
function isSent(asked, picture) {
  return picture !== null && !hasExamples(asked);
}

/**
 * @param {Asked} asked
 * @param {Blob | null} picture
 * @returns {Omit<Question, "path">}
 */
function bodyOf(asked, picture) {
  if (isSent(asked, picture)) {
    const thumbnail = asked.id !== null ? `/v1/images/${asked.id}/thumbnail` : undefined;
    return { body: picture, type: "application/octet-stream", thumbnail };
  }
  const body = {
    ...(asked.code !== null ? { code: asked.code } : asked.id !== null && { id: asked.id }),
    ...(asked.like.length && { like: asked.like }),
    ...(asked.unlike.length && { unlike: asked.unlike }),
  };
  return { body: JSON.stringify(body), type: "application/json" };
}
