// The card of one picture: verdict, score on its scale, and what more can be asked of it.
"use strict";

const WORDS = { synthetic: "AI-generated", real: "Real", uncertain: "Uncertain" };
const NOTES = {
  small: "under 224 px on its short side",
  document: "like a screenshot or a document",
  drawing: "like a line drawing or print",
};
const RECODINGS = {
  "jpeg:85": "JPEG, quality 85", "jpeg:70": "JPEG, quality 70", "webp:80": "WebP, quality 80",
  "resize:0.7+jpeg:90": "shrunk to 0.7, JPEG 90",
};
const SVG = "http://www.w3.org/2000/svg";

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function shape(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// A probability as a label: two decimals, but no 0.00 and 1.00 that it is not.
function shown(score) {
  if (score > 0 && score < 0.005) return "< 0.01";
  return score < 1 && score >= 0.995 ? "> 0.99" : score.toFixed(2);
}

// The scale from 0 to 1: where the verdicts lie, their bounds, and a mark at the score.
function scaleOf(score, rule) {
  const at = value => 6 + 284 * value;
  const text = `Score ${shown(score)} on a scale from 0, real, to 1, synthetic`;
  const scale = shape("svg", { class: "scale", viewBox: "0 0 300 46",
    preserveAspectRatio: "xMinYMid meet", role: "img", "aria-label": text });
  const parts = [["low", 0, rule.low], ["mid", rule.low, rule.high], ["up", rule.high, 1]];
  for (const [kind, from, to] of parts) {
    scale.append(shape("rect", { class: kind, x: at(from), y: 14, height: 12,
      width: Math.max(0, at(to) - at(from)) }));
  }
  for (const value of new Set([0, rule.low, rule.high, 1])) {
    scale.append(shape("line", { class: "tick", x1: at(value), x2: at(value), y1: 14, y2: 30 }));
    scale.append(shape("text", { x: at(value), y: 42 }, String(Number(value.toFixed(2)))));
  }
  const x = at(score);
  scale.append(shape("path", { class: "mark_score", d: `M${x} 16 l-6 -10 h12 z` }));
  return scale;
}

function sentence(answer, rule) {
  if (answer.label === "uncertain" && answer.stability &&
      answer.stability.held < answer.stability.of) {
    return "Re-encoding the picture changes the verdict, which therefore says little.";
  }
  if (answer.label === "uncertain") {
    return `Between ${shown(rule.low)} and ${shown(rule.high)} the detector is wrong too often to ` +
      "say which it is.";
  }
  return answer.label === "synthetic"
    ? `Above ${shown(rule.high)}, where few real pictures of those tested lie.`
    : `Below ${shown(rule.low)}, where few generated pictures of those tested lie.`;
}

// The rows under a verdict: pixels, remarks, scores under re-encodings.
function facts(answer) {
  const list = element("dl");
  const add = (name, text) => list.append(element("dt", {}, name), element("dd", {}, text));
  add("Pixels", `${answer.width} × ${answer.height}`);
  if (answer.notes.length) add("Remark", answer.notes.map(note => NOTES[note] ?? note).join("; "));
  if (answer.stability) {
    add("Verdict held", `in ${answer.stability.held} of ${answer.stability.of} re-encodings`);
    for (const [name, score] of Object.entries(answer.stability.scores)) {
      add(RECODINGS[name] ?? name, score === null ? "cannot be encoded so" : shown(score));
    }
  }
  return list;
}

const SIGNED = {
  trusted: "signed by somebody whom this server trusts",
  unknown_signer: "signed by somebody unknown",
  invalid: "changed since it was signed, or signed wrongly",
  unchecked: "perhaps signed; not checked",
  none: "not signed",
};

// What the file says of its own origin, apart from the score, which heeds none of it.
function originOf(told) {
  const list = element("dl");
  for (const { kind, text } of told.statements) {
    list.append(element("dt", {}, kind.replace("_", " ")), element("dd", {}, text));
  }
  list.append(element("dt", {}, "content credentials"), element("dd", {}, SIGNED[told.c2pa.state]));
  for (const { issuer, generator } of told.c2pa.manifests ?? []) {
    const who = [issuer || "an issuer without a name", generator].filter(Boolean).join(", ");
    list.append(element("dt", {}, "signed by"), element("dd", {}, who));
  }
  const signed = !["none", "unchecked"].includes(told.c2pa.state);
  const said = told.statements.length > 0 || signed;
  return element("details", { open: said },
    element("summary", {}, said ? "The file says something of its origin" :
      "The file says nothing of its origin"),
    element("p", { className: "soft" }, "Anyone can remove or forge this, and the score heeds none " +
      "of it; only a trusted signature ties it to somebody."), list);
}

function previewOf(item) {
  const image = element("img", { src: item.address, alt: `Preview of ${item.name}` });
  const none = () => image.replaceWith(
    element("div", { className: "no_preview" }, "this browser cannot show this format"));
  image.addEventListener("error", none);
  return element("div", {}, image);
}

function buttonOf(text, action) {
  const button = element("button", { type: "button" }, text);
  button.addEventListener("click", () => action(button));
  return button;
}

// Fills a picture's card by what is known of it: an error, an answer, or that it waits.
// `asks`: explain(item), restate(item), remove(item), each called by a button of the card.
function fillCard(item, rule, asks) {
  const { card, answer } = item;
  const body = element("div", {}, element("h3", {}, item.name));
  card.replaceChildren(previewOf(item), body);
  if (item.error || (answer && answer.error)) {
    body.append(element("p", { className: "error" }, item.error || answer.error));
    body.append(element("p", { className: "buttons" }, buttonOf("Remove", () => asks.remove(item))));
    return;
  }
  if (!answer) {
    body.append(element("p", { className: "soft" }, item.state));
    return;
  }
  body.append(element("p", { className: `verdict ${answer.label}` }, WORDS[answer.label]));
  body.append(scaleOf(answer.score, rule));
  body.append(element("p", {}, element("strong", {}, `Score ${shown(answer.score)}. `),
    sentence(answer, rule)));
  body.append(facts(answer));
  if (answer.credentials) body.append(originOf(answer.credentials));
  const buttons = element("p", { className: "buttons" });
  if (rule.explains) {
    const open = item.overlay && item.overlayShown;
    const explain = buttonOf("What it rests on", () => asks.explain(item));
    explain.setAttribute("aria-expanded", String(Boolean(open)));
    buttons.append(explain);
  }
  if (!answer.stability) buttons.append(buttonOf("Does it hold?", () => asks.restate(item)));
  buttons.append(buttonOf("Copy JSON", button => asks.copy(item, button)));
  buttons.append(buttonOf("Remove", () => asks.remove(item)));
  body.append(buttons);
  if (item.busy) body.append(element("p", { className: "soft" }, item.busy));
  if (item.overlay && item.overlayShown) {
    const drawing = element("img", { src: `data:image/png;base64,${item.overlay}`,
      alt: `What the score of ${item.name} rests on, drawn over it` });
    card.append(element("div", { className: "wide" }, drawing));
  }
}
