/** What can be done with a query beside its results: the other view, and copies of the request. */

import { copyButton } from "./clipboard.js";
import { curlOf, pythonOf } from "./copy.js";
import { byId, element } from "./dom.js";
import { go, shown } from "./navigation.js";
import { ROOT } from "./service.js";

/** @type {["find" | "compare", string][]} */
const VIEWS = [
  ["find", "Find"],
  ["compare", "Compare"],
];

const buttons = VIEWS.map(([view, name]) => {
  const button = element("button", { type: "button", data: { view } }, name);
  button.addEventListener("click", () => go({ view }));
  return button;
});

const requests = element("div", {});
const copies = element("details", { className: "copies" }, element("summary", {}, "Copy this request"), requests);
copies.addEventListener("toggle", showRequests);

const own = element(
  "div",
  { className: "query-tools" },
  element("div", { className: "switch", role: "group", "aria-label": "How results are shown" }, ...buttons),
  copies,
);

/** Show which view is current, before it is drawn. */
export function showTools() {
  if (!own.isConnected) byId("query-tools").prepend(own);
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(button.dataset.view === shown().asked.view));
  }
  copies.hidden = false; // so that what lies below does not move when the answer comes
}

/** Show what was asked, once the view is drawn. */
export function showQuestion() {
  const { question, answer } = shown();
  copies.hidden = !question || !answer;
  showRequests();
}

function showRequests() {
  const { question } = shown();
  if (!copies.open || !question) return;
  const service = location.origin + ROOT;
  requests.replaceChildren(
    ...[
      { name: "curl", text: curlOf(service, question) },
      { name: "Python", text: pythonOf(service, question) },
    ].flatMap(({ name, text }) => [
      copyButton(`Copy as ${name}`, () => text),
      element("pre", { tabIndex: 0, role: "group", "aria-label": name }, text),
    ]),
  );
}
