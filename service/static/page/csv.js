/** Tables as CSV, which spreadsheets open without running what is in them. */

const FORMULA = /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/; // what a spreadsheet would calculate

/**
 * A line for each row, by RFC 4180, below the names of the first row's columns; empty without rows.
 * A text that a spreadsheet would take for a formula begins with an apostrophe.
 * @param {Record<string, string | number | boolean | null>[]} rows
 * @returns {string}
 */
export function csv(rows) {
  if (!rows.length) return "";
  const names = Object.keys(rows[0]);
  const lines = [names, ...rows.map((row) => names.map((name) => row[name]))];
  return lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

/** @param {string | number | boolean | null} value */
function cell(value) {
  if (typeof value !== "string") return String(value ?? "");
  const text = FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * Have the browser save a text as a file.
 * @param {string} name of the file
 * @param {string} text
 * @param {string} type
 */
export function save(name, text, type = "text/csv") {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // after the download has begun
}
