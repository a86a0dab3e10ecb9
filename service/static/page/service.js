/** Requests to the service that serves the page. */

import { stagesOf } from "./timing.js";
import { sentence, withoutJson } from "./words.js";

/** The path under which a proxy shows the service. */
export const ROOT = document.documentElement.dataset.root ?? "";

const PATIENCE = 3; // times that a request is repeated which the service is too busy for
const PATIENCE_MS = 120_000; // for one answer
const PASSING = [408, 429]; // the body came too slowly, or requests too often

const NO_ANSWER = `the service has not answered within ${PATIENCE_MS / 60_000} minutes`;

/** What went wrong, in a sentence. */
export class Problem extends Error {
  /**
   * @param {string} detail
   * @param {string | null} [code] of the service's problem; null if it gave none
   * @param {boolean} [mayPass] whether the same request may be answered later
   */
  constructor(detail, code = null, mayPass = false) {
    super(sentence(detail));
    this.code = code;
    this.mayPass = mayPass;
  }
}

/**
 * @typedef {object} Sent
 * @property {string} [method]
 * @property {BodyInit} [body]
 * @property {string} [type] of the body
 * @property {string} [key] an API key
 * @property {number} [patience] times that it is repeated
 * @property {AbortSignal} [signal]
 */

/**
 * The JSON that the service answers with. Throws Problem; an aborted request throws AbortError.
 * @param {string} path from /v1 on
 * @param {Sent} [sent]
 * @returns {Promise<any>}
 */
export const ask = async (path, sent) => (await askTimed(path, sent)).answer;

/**
 * The same, with the milliseconds that the service spent in each stage.
 * @param {string} path
 * @param {Sent} [sent]
 * @returns {Promise<{answer: any, stages: import("./timing.js").Stages}>}
 */
export async function askTimed(path, sent = {}) {
  const { method = "GET", body, type, key, patience = PATIENCE, signal } = sent;
  /** @type {Record<string, string>} */
  const headers = type ? { "Content-Type": type } : {};
  if (key) headers.Authorization = `Bearer ${key}`;
  for (let attempt = 0; ; attempt++) {
    const response = await reach(ROOT + path, { method, headers, body, signal });
    const isJson = /json/.test(response.headers.get("Content-Type") ?? "");
    if (response.ok && isJson) {
      const answer = await response.json().catch(unreachable);
      return { answer, stages: stagesOf(response.headers.get("Server-Timing")) };
    }
    const wait = Number(response.headers.get("Retry-After"));
    if (response.status !== 503 || !wait || wait > 5 || attempt === patience) {
      throw await problemOf(response);
    }
    await pause(wait * 1000, signal);
  }
}

/**
 * What the service says went wrong, or else what the status means: a proxy has no `detail`.
 * @param {Response} response
 */
async function problemOf(response) {
  const { status } = response;
  const { detail, code } = (await response.json().catch(() => null)) ?? {};
  const said = typeof detail === "string" ? detail : withoutJson(status);
  return new Problem(said, code, status >= 500 || PASSING.includes(status));
}

/**
 * @param {string} url
 * @param {RequestInit} request
 */
async function reach(url, request) {
  try {
    const late = AbortSignal.timeout(PATIENCE_MS);
    const signal = request.signal ? AbortSignal.any([request.signal, late]) : late;
    return await fetch(url, { ...request, signal });
  } catch (error) {
    return unreachable(error);
  }
}

/**
 * @param {unknown} error
 * @returns {never}
 */
function unreachable(error) {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "AbortError") throw error;
  throw new Problem(name === "TimeoutError" ? NO_ANSWER : "the service cannot be reached", null, true);
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} [signal] what it was aborted with is thrown at once
 * @returns {Promise<void>}
 */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", abort);
  });
}

/** @param {number} id */
export const thumbnail = (id) => `${ROOT}/v1/images/${id}/thumbnail`;

/**
 * The thumbnail of an image, to be sent as a query. Throws Problem.
 * @param {number} id
 * @param {AbortSignal} [signal]
 * @returns {Promise<Blob>}
 */
export async function pictureOf(id, signal) {
  const response = await reach(thumbnail(id), { signal });
  if (!response.ok) throw await problemOf(response);
  return response.blob().catch(unreachable);
}

/** @param {string} code */
export const reconstruction = (code) => `${ROOT}/v1/codes/${code}/reconstruction.png`;
