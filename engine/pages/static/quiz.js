// The questionnaire's course: begin or go on, one trial after the other, the end.
"use strict";

const stage = document.getElementById("stage");
const problem = document.getElementById("problem");
const KEPT = "quiz participant"; // in the browser's own store: a reload goes on where it was

async function ask(path, content) {
  const sent = content && { method: "POST", body: JSON.stringify(content),
    headers: { "Content-Type": "application/json" } };
  const response = await fetch(`/api/quiz/${path}`, sent);
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
  return answer;
}

function place(view) {
  problem.hidden = true;
  stage.replaceChildren(view);
  view.querySelector("h2")?.focus();
  scrollTo(0, 0);
}

function complain(error) {
  problem.textContent = `That did not work: ${error.message}. Your answers so far are kept.`;
  problem.hidden = false;
}

// Counts down in `clock`, and calls `over` at the end. Returns a function that stops it.
function countDown(seconds, clock, over) {
  const end = performance.now() + 1000 * seconds;
  clock.hidden = false;
  const tick = setInterval(() => {
    const left = Math.max(0, end - performance.now()) / 1000;
    clock.textContent = `${Math.ceil(left)} s left`;
    if (left === 0) {
      clearInterval(tick);
      over();
    }
  }, 100);
  return () => clearInterval(tick);
}

// Shows a trial and resolves to the answer that was given to it.
function judged(session, trial, position, earlier, hints) {
  return new Promise(done => {
    let start = performance.now();
    let stop = () => {};
    const give = choice => {
      stop();
      const values = new FormData(form);
      form.querySelector("button").disabled = true;
      done({ participant: session.participant, trial: trial.number, choice,
        confidence: choice ? Number(values.get("confidence")) : 50,
        reasons: values.getAll("reasons"), stage: earlier ? 2 : 1,
        milliseconds: Math.round(performance.now() - start) });
    };
    const loaded = () => {
      start = performance.now();
      if (!session.seconds) return;
      stop = countDown(session.seconds, form.querySelector(".clock"), () => give(null));
    };
    const form = trialForm(session, trial, position, loaded, earlier, hints);
    form.addEventListener("submit", event => {
      event.preventDefault();
      give(new FormData(form).get("choice"));
    });
    place(form);
  });
}

// Sends an answer until the server has it; one that it has already is no error.
async function deliver(answer) {
  for (;;) {
    try {
      return await ask("answer", answer);
    } catch (error) {
      if (error.status === 400) return {};
      complain(error);
      await new Promise(done => setTimeout(done, 2000));
    }
  }
}

function told(answer, session, trial) {
  return new Promise(done => place(feedbackOf(answer, session, trial, done)));
}

async function run(session) {
  const ahead = session.trials.filter(trial => !session.done.includes(trial.number));
  for (const trial of ahead) {
    const position = trial.number + 1;
    for (const name of session.trials[position]?.pictures ?? []) new Image().src = `/quiz/${name}`;
    const first = await judged(session, trial, position);
    let reply = await deliver(first);
    if (reply.hints) {
      reply = await deliver(await judged(session, trial, position, first, reply.hints));
    }
    if (reply.truth) await told(reply, session, trial);
  }
  const summary = await ask(`end/${session.participant}`);
  localStorage.removeItem(KEPT);
  place(endPage(summary));
}

document.getElementById("begin").addEventListener("submit", async event => {
  event.preventDefault();
  const answers = Object.fromEntries([...new FormData(event.target)].filter(([, text]) => text));
  try {
    const session = await ask("begin", { consent: true, answers });
    localStorage.setItem(KEPT, session.participant);
    await run(session);
  } catch (error) {
    complain(error);
  }
});

const before = localStorage.getItem(KEPT);
if (before) {
  ask(`session/${before}`).then(run, () => localStorage.removeItem(KEPT));
}
