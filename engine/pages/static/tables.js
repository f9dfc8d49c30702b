// Tables whose columns sort, and CSV files of rows. Used by the demo and by the leaderboard.
"use strict";

// The value that a cell sorts by: a number where data-value or the text is one, else its text.
function sortValue(cell) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = Number(text);
  return text !== "" && !Number.isNaN(number) ? number : text.toLowerCase();
}

// `sign` -1 turns the order round, but what has no number comes last in both.
function compareValues(a, b, sign) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
}

// Sorts a table's rows by a column, as "ascending" or "descending"; equal rows stay in order.
function sortTable(table, column, order) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach(head => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", order);
  const sign = order === "descending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map(row => [sortValue(row.cells[column]), row]);
  rows.sort(([a], [b]) => compareValues(a, b, sign));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

// Puts a button into each head, which sorts by its column, the other way round the second time.
function makeSortable(table, changed = () => {}) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const first = head.classList.contains("number") ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === first ? second : first;
      sortTable(table, column, order);
      changed(column, order);
    });
  });
}

// A cell that begins like a formula would be run by a spreadsheet: names of files are strangers'.
function csvCell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function toCsv(rows) {
  return rows.map(row => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

function download(name, text, type = "text/csv") {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
