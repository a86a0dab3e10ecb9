/** Groups of pictures that are nearly equal. */

/**
 * @param {import("./navigation.js").Entry} entry
 * @param {AbortSignal} signal
 */
export async function showDuplicates(entry, signal) {}
