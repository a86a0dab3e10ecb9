/** @param {HTMLElement} section @param {string | null} queryCode @param {any} hit */ export function describeBits(section, queryCode, hit) {}
