/** What the page just asked, as a command and as a program. */

/** @typedef {import("./address.js").Asked} Asked */
/** @typedef {import("./question.js").Question} Question */

const FILE = "picture.jpg"; // stands for the picture that was given

/**
 * @param {string} service its address
 * @param {Question} question
 */
export function curlOf(service, { path, body, type, thumbnail }) {
  const fetched = thumbnail ? `curl --silent ${quoted(service + thumbnail)} |\n` : "";
  const file = thumbnail ? "-" : FILE;
  const data = typeof body === "string" ? `--data ${quoted(body)}` : `--data-binary @${file}`;
  return `${fetched}curl ${quoted(service + path)} \\\n  -H ${quoted(`Content-Type: ${type}`)} \\\n  ${data}`;
}

/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`; // for a POSIX shell

/**
 * @param {string} service
 * @param {Question} question
 */
export function pythonOf(service, { path, body, thumbnail }) {
  const given = new URL(path, "http://localhost").searchParams;
  const asked = typeof body === "string" ? JSON.parse(body) : {};
  const query = typeof body === "string" ? asked.id ?? asked.code : FILE;
  const methods = given.getAll("method");
  const options = [
    ...["k", "radius"].map((name) => [name, given.has(name) ? Number(given.get(name)) : null]),
    ...["label", "uri_prefix", "crop"].map((name) => [name, given.get(name)]),
    ...["like", "unlike"].map((name) => [name, asked[name]]),
  ].filter(([, value]) => value !== null && value !== undefined);
  const said = options.map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  if (methods.length) said.push("method=method");
  if (thumbnail) said.unshift("picture");
  else if (query !== undefined) said.unshift(JSON.stringify(query));
  const loop = [
    `for hit in client.search(${said.join(", ")}):`,
    `    print(${methods.length ? "method, " : ""}hit.distance, hit.closeness, hit.label, hit.uri)`,
  ];
  const lines = methods.length
    ? [`for method in ${JSON.stringify(methods)}:`, ...loop.map((line) => `    ${line}`)]
    : loop;
  const fetching = [
    `with urllib.request.urlopen(${JSON.stringify(service + thumbnail)}) as response:`,
    "    picture = response.read()",
    "",
  ];
  return [
    ...(thumbnail ? ["import urllib.request", ""] : []),
    "import hashsearch as hs",
    "",
    ...(thumbnail ? fetching : []),
    `with hs.Client(${JSON.stringify(service)}) as client:`,
    ...lines.map((line) => `    ${line}`),
  ].join("\n");
}
