// The demo: takes pictures by choice, drop and paste, and scores them one after the other.
"use strict";

const checker = document.getElementById("checker");
const RULE = {
  threshold: Number(checker.dataset.threshold), low: Number(checker.dataset.low),
  high: Number(checker.dataset.high), explains: checker.dataset.explains === "yes",
};
const MOST_BYTES = Number(checker.dataset.megabytes) * 2 ** 20 - 4096; // a form is a little larger
const parts = Object.fromEntries(
  ["progress", "progress_text", "bar", "status", "summary", "cards", "csv", "clear"]
    .map(id => [id, document.getElementById(id)]));
const table = parts.summary.querySelector("table");
const items = [];
let working = false;

const pause = seconds => new Promise(done => setTimeout(done, 1000 * seconds));

// The server's answer on one picture; waits where it is busy. Throws an Error with its reason.
async function ask(item, query = "") {
  for (;;) {
    const form = new FormData();
    form.append("files", item.file, item.name);
    let response;
    try {
      response = await fetch(`/api/score${query}`, { method: "POST", body: form });
    } catch {
      throw new Error("the server cannot be reached");
    }
    if (response.status === 429) {
      await pause(Number(response.headers.get("Retry-After")) || 2);
      continue;
    }
    const content = await response.json().catch(() => null);
    if (!response.ok) throw new Error(content?.error ?? `the server answered ${response.status}`);
    return content[0];
  }
}

// Asks for more on a picture that has its score, and shows it in its card.
async function askMore(item, words, query, use) {
  if (item.busy) return;
  item.busy = words;
  show(item);
  try {
    use(await ask(item, query));
    parts.status.textContent = `${item.name}: done.`;
  } catch (error) {
    parts.status.textContent = `${item.name}: ${error.message}`;
  }
  item.busy = "";
  show(item);
}

const ASKS = {
  explain(item) {
    item.overlayShown = !item.overlayShown;
    if (item.overlay || !item.overlayShown) return show(item);
    return askMore(item, "Drawing what the score rests on …", "?explain=true",
      answer => { item.overlay = answer.explanation; });
  },
  restate: item => askMore(item, "Scoring it under four re-encodings …", "?stability=true",
    answer => { item.answer = { ...item.answer, ...answer }; }),
  async copy(item, button) {
    const text = JSON.stringify(item.answer, null, 2);
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch { // without TLS browsers refuse it, but on localhost
      download(`${item.name}.json`, text, "application/json");
    }
  },
  remove(item) {
    items.splice(items.indexOf(item), 1);
    URL.revokeObjectURL(item.address);
    item.card.remove();
    summarise();
  },
};

// Draws a card anew; the keyboard's focus stays on the button it was on.
function show(item) {
  const text = item.card.contains(document.activeElement) && document.activeElement.textContent;
  fillCard(item, RULE, ASKS);
  if (text) [...item.card.querySelectorAll("button")].find(b => b.textContent === text)?.focus();
  summarise();
}

function rowOf(item) {
  const { answer, error } = item;
  const scored = answer && !answer.error;
  const cell = (text, value, kind = "") => {
    const made = element("td", { className: kind }, text);
    made.dataset.value = value;
    return made;
  };
  const link = element("a", { href: `#${item.card.id}` }, item.name);
  const name = element("th", { scope: "row" }, link);
  name.dataset.value = item.name;
  const verdict = scored ? WORDS[answer.label] : error || answer?.error ? "Error" : "…";
  return element("tr", {}, name,
    cell(scored ? answer.score.toFixed(3) : "–", scored ? answer.score : "", "number"),
    cell(verdict, verdict, scored ? answer.label : ""),
    cell(scored ? `${answer.width} × ${answer.height}` : "–",
      scored ? answer.width * answer.height : "", "number"));
}

// The table of all pictures, in the order it was sorted by.
function summarise() {
  parts.summary.hidden = items.length < 2;
  table.tBodies[0].replaceChildren(...items.map(rowOf));
  const sorted = table.tHead.querySelector("[aria-sort]");
  if (sorted) sortTable(table, sorted.cellIndex, sorted.getAttribute("aria-sort"));
}

async function work() {
  if (working) return;
  working = true;
  let waiting;
  while ((waiting = items.filter(item => !item.answer && !item.error)).length) {
    const [item] = waiting;
    const done = items.length - waiting.length;
    parts.progress.hidden = false;
    parts.progress_text.textContent = `Scoring picture ${done + 1} of ${items.length}`;
    parts.bar.value = done / items.length;
    item.state = "Scoring …";
    show(item);
    try {
      item.answer = await ask(item, "?credentials=true");
    } catch (error) {
      item.error = error.message;
    }
    if (items.includes(item)) show(item);
    const verdict = item.answer && !item.answer.error ? WORDS[item.answer.label] : "error";
    parts.status.textContent = `${item.name}: ${verdict}`;
  }
  parts.progress.hidden = true;
  working = false;
}

function add(files) {
  for (const file of files) {
    const item = { file, name: file.name || "pasted picture", state: "Waiting …", busy: "",
      address: URL.createObjectURL(file), card: element("article", { className: "card" }) };
    item.card.id = `picture_${Date.now()}_${items.length}`;
    if (file.size > MOST_BYTES) item.error = `larger than ${checker.dataset.megabytes} MB`;
    items.push(item);
    parts.cards.append(item.card);
    show(item);
  }
  work();
}

for (const id of ["pictures", "camera"]) {
  document.getElementById(id).addEventListener("change", event => {
    add([...event.target.files]);
    event.target.value = "";
  });
}
document.addEventListener("paste", event => add([...event.clipboardData.files]));
document.addEventListener("dragover", event => {
  event.preventDefault();
  checker.classList.add("over");
});
document.addEventListener("dragleave", () => checker.classList.remove("over"));
document.addEventListener("drop", event => {
  event.preventDefault();
  checker.classList.remove("over");
  add([...event.dataTransfer.files]);
});
parts.clear.addEventListener("click", () => [...items].forEach(ASKS.remove));
parts.csv.addEventListener("click", () => {
  const columns = ["path", "score", "logit", "label", "width", "height", "error", "notes"];
  const rows = items.map(({ name, answer, error }) => columns.map(column => {
    if (column === "path") return name;
    if (column === "error") return error ?? answer?.error ?? "";
    return column === "notes" ? (answer?.notes ?? []).join(" ") : answer?.[column];
  }));
  download("scores.csv", toCsv([columns, ...rows]));
});
for (const part of document.querySelectorAll(".photo")) part.hidden = !navigator.maxTouchPoints;
makeSortable(table);
