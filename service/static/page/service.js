/** Requests to the service that serves the page. */

import { sentence, withoutJson } from "./words.js";

/** The path under which a proxy shows the service. */
export const ROOT = document.documentElement.dataset.root ?? "";

const PATIENCE = 3; // times that a request is repeated which the service is too busy for

/** What went wrong, in a sentence. */
export class Problem extends Error {
  /**
   * @param {string} detail
   * @param {string | null} code of the service's problem; null if it gave none
   */
  constructor(detail, code = null) {
    super(sentence(detail));
    this.code = code;
  }
}

/**
 * The JSON that the service answers with. Throws Problem; an aborted request throws AbortError.
 * @param {string} path from /v1 on
 * @param {{method?: string, body?: BodyInit, type?: string, key?: string, patience?: number,
 *   signal?: AbortSignal}} [request] key: an API key; patience: times that it is repeated
 * @returns {Promise<any>}
 */
export async function ask(path, request = {}) {
  const { method = "GET", body, type, key, patience = PATIENCE, signal } = request;
  /** @type {Record<string, string>} */
  const headers = type ? { "Content-Type": type } : {};
  if (key) headers.Authorization = `Bearer ${key}`;
  for (let attempt = 0; ; attempt++) {
    const response = await reach(ROOT + path, { method, headers, body, signal });
    const isJson = /json/.test(response.headers.get("Content-Type") ?? "");
    if (!isJson) throw new Problem(withoutJson(response.status));
    const answer = await response.json();
    if (response.ok) return answer;
    const wait = Number(response.headers.get("Retry-After"));
    if (response.status !== 503 || !wait || wait > 5 || attempt === patience) {
      throw new Problem(answer.detail, answer.code);
    }
    await pause(wait * 1000, signal);
  }
}

/**
 * @param {string} url
 * @param {RequestInit} request
 */
async function reach(url, request) {
  try {
    return await fetch(url, request);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem("the service cannot be reached");
  }
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} [signal]
 */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

/** @param {number} id */
export const thumbnail = (id) => `${ROOT}/v1/images/${id}/thumbnail`;

/** @param {string} code */
export const reconstruction = (code) => `${ROOT}/v1/codes/${code}/reconstruction.png`;
