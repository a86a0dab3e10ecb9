/** What is shown while the gallery cannot be asked: the page is loaded again once it can. */

const POLL_MS = 2000;

async function look() {
  const answer = await fetch(location.href, { method: "HEAD" }).catch(() => null);
  if (answer?.ok) location.reload();
  else setTimeout(look, POLL_MS);
}

setTimeout(look, POLL_MS);
