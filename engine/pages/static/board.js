// The leaderboard: its tables sort, entries are filtered by name, and the address keeps both.
"use strict";

const filter = document.getElementById("filter");
const tables = [...document.querySelectorAll("table.sortable")];
const DESCENDING = "descending";

function readState() {
  return new URLSearchParams(location.hash.slice(1));
}

function keep(changes) {
  const state = readState();
  for (const [name, value] of Object.entries(changes)) {
    if (value) state.set(name, value);
    else state.delete(name);
  }
  history.replaceState(null, "", `#${state}`);
}

// Hides all that is of entries whose name lacks the text.
function applyFilter() {
  const wanted = filter.value.trim().toLowerCase();
  for (const part of document.querySelectorAll("[data-name]")) {
    const hidden = !part.dataset.name.toLowerCase().includes(wanted);
    part.toggleAttribute("hidden", hidden);
  }
  const rows = [...document.querySelectorAll("#ranking tbody tr")];
  const visible = rows.filter(row => !row.hidden).length;
  document.getElementById("shown").textContent = `${visible} of ${rows.length}`;
}

// The state of the address: "sort" has table, column and order, as 0.3.descending.
function applyState() {
  const state = readState();
  filter.value = state.get("filter") ?? "";
  const [table, column, order] = (state.get("sort") ?? "").split(".");
  const head = tables[Number(table)]?.tHead.rows[0].cells[Number(column)];
  if (order && head) sortTable(tables[table], Number(column), order);
  applyFilter();
}

tables.forEach((table, number) => makeSortable(table, (column, order) => {
  keep({ sort: `${number}.${column}.${order === DESCENDING ? order : "ascending"}` });
}));
filter.addEventListener("input", () => {
  keep({ filter: filter.value.trim() });
  applyFilter();
});
document.getElementById("filters").addEventListener("submit", event => event.preventDefault());
addEventListener("hashchange", applyState);
applyState();
