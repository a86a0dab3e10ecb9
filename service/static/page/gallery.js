/** What the gallery holds, the job at work, and the files that could not be read. */

/**
 * @param {import("./navigation.js").Entry} entry
 * @param {AbortSignal} signal
 */
export async function showGallery(entry, signal) {}
