// What the questionnaire shows: a trial as a form, what is told after it, and the end page.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const SAID = { real: "Real", synthetic: "AI-generated" };

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function choiceOf(type, name, value, text) {
  const input = element("input", { type, name, value, required: type === "radio" });
  return element("label", { className: "choice" }, input, text);
}

function group(title, ...children) {
  return element("fieldset", {}, element("legend", {}, title), ...children);
}

// The pictures of a trial; `loaded` is called once all are to be seen.
function picturesOf(trial, loaded) {
  const names = trial.pictures.length > 1 ? ["The left picture", "The right picture"]
    : ["The picture to judge"];
  const box = element("div", { className: trial.pictures.length > 1 ? "shown two" : "shown" });
  const waiting = trial.pictures.map((name, index) => new Promise(done => {
    const image = element("img", { alt: names[index], src: `/quiz/${name}` });
    image.addEventListener("load", done);
    image.addEventListener("error", done);
    box.append(element("figure", {}, image));
  }));
  Promise.all(waiting).then(loaded);
  return box;
}

function hintOf(hints, two) {
  const texts = hints.map((hint, index) => {
    if (!hint) return "";
    return two ? `${index ? "right" : "left"}: ${hint}` : hint;
  }).filter(Boolean);
  const text = texts.join("; ") || "has nothing to say of this picture";
  return element("p", { className: "hint" }, `A detector's opinion, which may be wrong. ${text}`);
}

// The form of a trial. `answer` may hold an earlier answer, which is then to be confirmed.
function trialForm(session, trial, position, loaded, earlier = null, hints = null) {
  const two = session.mode === "pair";
  const head = element("h2", { tabIndex: -1 },
    `${two ? "Pair" : "Picture"} ${position} of ${session.trials.length}`);
  const form = element("form", { className: "trial" }, head);
  form.append(element("progress", { value: position - 1, max: session.trials.length,
    ariaLabel: "Progress" }));
  form.append(element("p", { className: "clock", hidden: true }));
  form.append(picturesOf(trial, loaded));
  if (trial.check) {
    const asked = two ? `choose the ${trial.check === "real" ? "left" : "right"} picture`
      : `choose “${SAID[trial.check]}”`;
    form.append(element("p", { className: "check" },
      `To see that you are still with us: whatever this shows, ${asked} here.`));
  }
  const shown = hints ?? trial.hints;
  if (shown) form.append(hintOf(shown, two));
  const words = two ? [["real", "The left one"], ["synthetic", "The right one"]]
    : [["real", SAID.real], ["synthetic", SAID.synthetic]];
  form.append(group(two ? "Which one is real?" : "What is it?",
    element("div", { className: "choices" },
      ...words.map(([value, text]) => choiceOf("radio", "choice", value, text)))));
  const range = element("input", { type: "range", name: "confidence", min: 50, max: 100, step: 5,
    value: 75, id: "confidence" });
  const said = element("output", { htmlFor: "confidence" }, "75 %");
  range.addEventListener("input", () => { said.textContent = `${range.value} %`; });
  form.append(element("label", { htmlFor: "confidence" }, "How sure are you? ", said), range);
  form.append(element("div", { className: "ends" }, element("span", {}, "50 % a guess"),
    element("span", {}, "100 % certain")));
  if (session.reasons.length && !trial.check) {
    form.append(group("Why? (optional)", element("div", { className: "choices" },
      ...session.reasons.map(text => choiceOf("checkbox", "reasons", text, text)))));
  }
  if (earlier) {
    form.querySelector(`[name=choice][value=${earlier.choice}]`)?.setAttribute("checked", "");
    range.value = earlier.confidence;
    said.textContent = `${range.value} %`;
  }
  form.append(element("p", { className: "buttons" },
    element("button", { className: "primary" }, earlier ? "This is my final answer" : "Next")));
  return form;
}

// What is told after an answer, where the questionnaire tells it.
function feedbackOf(told, session, trial, go) {
  const truth = session.mode === "pair"
    ? `The ${told.truth[0] === "real" ? "left" : "right"} one is real.`
    : `It is ${told.truth[0] === "real" ? "real" : "AI-generated"}.`;
  const head = element("h2", { tabIndex: -1 }, told.right ? "Right." : "Not so.");
  const next = element("button", { type: "button", className: "primary" }, "Next");
  next.addEventListener("click", go);
  return element("div", { className: "trial" }, head, element("p", {}, truth),
    element("p", { className: "buttons" }, next), picturesOf(trial, () => {}));
}

function percent(share) {
  return `${(100 * share).toFixed(0)} %`;
}

// A bar of a rate with its interval, its name and its figures above it.
function barOf(name, rate, own = false) {
  const bar = shape("svg", { viewBox: "0 0 200 12", preserveAspectRatio: "none",
    "aria-hidden": "true" });
  bar.append(shape("rect", { class: own ? "own" : "", x: 0, y: 2, height: 8,
    width: 200 * rate.value }));
  if (rate.total) {
    bar.append(shape("line", { x1: 200 * rate.low, x2: 200 * rate.high, y1: 6, y2: 6 }));
  }
  const figures = rate.total
    ? `${percent(rate.value)} (${percent(rate.low)} to ${percent(rate.high)})`
    : percent(rate.value);
  return [element("span", {}, name), element("output", {}, figures), bar];
}

function endPage(summary) {
  const page = element("div", {}, element("h2", { tabIndex: -1 }, "Thank you."));
  if (!summary.you) return page;
  page.append(element("p", { className: "result" }, `${percent(summary.you.value)} right`));
  page.append(element("p", { className: "soft" },
    `of ${summary.you.total} answers; in brackets and as lines, 95 % intervals.`));
  const bars = element("div", { className: "bars" }, ...barOf("You", summary.you, true));
  if (summary.everyone) bars.append(...barOf("Others, same pictures", summary.everyone));
  for (const [name, rate] of Object.entries(summary.detectors)) {
    if (rate) bars.append(...barOf(`Detector ${name}`, rate));
  }
  if (summary.reference !== null) {
    bars.append(...barOf(summary.reference_text, { value: 1 - summary.reference, total: 0 }));
  }
  page.append(element("h3", {}, "You and others"), bars);
  const kinds = Object.entries(summary.kinds).filter(([kind, rate]) => kind && rate);
  if (kinds.length > 1) {
    page.append(element("h3", {}, "You, by kind"), element("div", { className: "bars" },
      ...kinds.flatMap(([kind, rate]) => barOf(kind, rate, true))));
  }
  return page;
}
