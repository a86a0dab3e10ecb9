/** Buttons that copy a text. */

import { element } from "./dom.js";

const SAYS_MS = 2000;

/**
 * @param {string} label
 * @param {() => string} text
 */
export function copyButton(label, text) {
  const button = element("button", { type: "button", "aria-live": "polite" }, label);
  button.addEventListener("click", async () => {
    button.textContent = (await isCopied(text())) ? "Copied" : "Select the text to copy it";
    setTimeout(() => (button.textContent = label), SAYS_MS);
  });
  return button;
}

/** @param {string} text */
async function isCopied(text) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(() => true, () => false);
  }
  // Without https, the browser copies only what is selected.
  const focused = document.activeElement;
  const area = element("textarea", { value: text, className: "spoken" });
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const whether = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return whether;
}
