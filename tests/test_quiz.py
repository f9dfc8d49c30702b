"""scripts/quiz.py, and the questionnaire: how it is made, its course in a browser, its report."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cli_runner import script
from conftest import make_picture
from page_server import WIDTHS, browser, check_accessible, opened, served  # noqa: F401
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from starlette.testclient import TestClient

from engine.config import ConfigError
from engine.pages import quiz_stats
from engine.pages.quiz import Quiz, read_quiz, trials_of
from engine.pages.quiz_answers import ANSWERS, Answers
from engine.pages.server import Parts, ServerOptions, application
from engine.runtime.table_writer import TableWriter
from engine.scoring.probability import score_of
from engine.scoring.table import COLUMNS
from scripts import quiz as program

GENERATORS = ("gan", "flux")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 24 pictures: two kinds, two generators, odd sizes, JPEG with a comment and PNG."""
    folder = tmp_path_factory.mktemp("data")
    rows = [("image", "class", "generator", "source", "kind")]
    for number in range(24):
        fake, kind = number % 2, ("art", "photo")[number // 2 % 2]
        name = f"{number}.{('jpg', 'png')[number % 2]}"
        picture = make_picture(number, bool(fake), (90 + number, 120))
        picture.save(folder / name, **({} if fake else {"comment": b"secret"}))
        maker = GENERATORS[number // 4 % 2] if fake else ""
        rows.append((name, str(fake), maker, "" if fake else "camera", kind))
    with (folder / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "list.csv"


def made(data: Path, folder: Path, *more: object) -> Path:
    """A questionnaire of three pictures of each class and kind, with a detector's scores."""
    words = ["make", data, "--output", folder, "--by", "kind", "--per_kind", 3, "--size", 64,
             "--workers", 0, *more]  # fmt: skip
    assert program.main([str(word) for word in words]) == 0
    rows = list(csv.DictReader((folder / "pictures.csv").open()))
    run = folder / "detectors" / "stub"
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"threshold": 0.5}')
    with TableWriter(run / "scores.csv", COLUMNS, (), False) as table:
        for number, row in enumerate(rows):
            # Wrong on the first picture alone.
            logit = 2.0 if (row["class"] == "1") != (number == 0) else -2.0
            table.append([(row["image"], row["source"], row["generator"], row["class"], logit,
                           score_of(logit), "", "none", 64, 64, "")])  # fmt: skip
    return folder


def edit(folder: Path, **changes: object) -> Quiz:
    file = folder / "quiz.yaml"
    content = yaml.safe_load(file.read_text()) | changes
    file.write_text(yaml.safe_dump(content))
    return read_quiz(folder)


# --- making one


def test_pictures_are_drawn_evenly_and_told_by_nothing(data: Path, tmp_path: Path) -> None:
    folder = made(data, tmp_path / "quiz")
    rows = list(csv.DictReader((folder / "pictures.csv").open()))
    assert Counter((row["class"], row["kind"]) for row in rows) == {
        (label, kind): 3 for label in "01" for kind in ("art", "photo")
    }
    files = sorted((folder / "pictures").iterdir())
    assert {f"pictures/{file.name}" for file in files} == {row["image"] for row in rows}
    for file in files:
        with Image.open(file) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    again = made(data, tmp_path / "again")
    assert (again / "pictures.csv").read_bytes() == (folder / "pictures.csv").read_bytes()
    other = made(data, tmp_path / "other", "--seed", 1)
    assert (other / "pictures.csv").read_bytes() != (folder / "pictures.csv").read_bytes()


def test_what_cannot_be_made_is_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = script(capsys, "quiz.py: ", program.main)
    make = ("make", data, "--workers", 0, "--output")
    assert "found 6" in run(*make, tmp_path / "a", "--per_kind", 7, "--by", "kind").complaint
    assert "empty folder" in run(*make, data.parent, "--per_kind", 1).complaint
    drawn = run(*make, tmp_path / "b", "--per_kind", 2, "--by", "generator", "--size", 200)
    assert drawn.status == 0 and "8 of 8 pictures were enlarged" in drawn.err
    rows = csv.DictReader((tmp_path / "b" / "pictures.csv").open())
    assert Counter(row["generator"] for row in rows) == {"": 4, "gan": 2, "flux": 2}
    assert "answers" in run("report", tmp_path / "b").complaint
    with pytest.raises(ConfigError, match=r"detectors/"):
        edit(tmp_path / "b", hint="before")
    with pytest.raises(ConfigError, match="mode"):
        edit(tmp_path / "b", mode="three", hint="none")


def test_trials_are_a_persons_own(data: Path, tmp_path: Path) -> None:
    folder = made(data, tmp_path / "quiz")
    quiz = edit(folder, attention=2, trials=8, hint="before")
    first, same, other = (trials_of(quiz, name) for name in ("a", "a", "b"))
    assert first == same != other
    checks = [trial for trial in first if trial.check]
    assert len(checks) == 2 and first[0].check is None and len(first) == 10
    assert [trial.number for trial in first] == list(range(10))
    labels = [quiz.pictures[t.pictures[0]].label for t in first if not t.check]
    assert sum(labels) == 4
    assert {t.hinted for name in "abcd" for t in trials_of(quiz, name)} == {True, False}
    pairs = trials_of(edit(folder, mode="pair", attention=0, trials=None), "a")
    assert len(pairs) == 6
    for pair in pairs:
        left, right = (quiz.pictures[name] for name in pair.pictures)
        assert left.label != right.label and left.kind == right.kind
    assert len({name for pair in pairs for name in pair.pictures}) == 12


# --- answers


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    return made(data, tmp_path / "quiz")


def client_of(quiz: Quiz) -> TestClient:
    app = application(Parts(quiz=Answers(quiz)), ServerOptions())
    return TestClient(app, base_url="http://localhost")


def answer_all(client: TestClient, quiz: Quiz, wrong: int = 0, attentive: bool = True) -> str:
    """A person who is wrong about the first few pictures. Returns the id."""
    session = client.post("/api/quiz/begin", json={"consent": True}).json()
    for trial in session["trials"]:
        truth = bool(quiz.pictures[trial["pictures"][0]].label)
        said = truth != (wrong > 0 and trial["check"] is None)
        wrong -= trial["check"] is None
        choice = "synthetic" if said else "real"
        if trial["check"]:
            choice = (
                trial["check"] if attentive else {"real": "synthetic"}.get(trial["check"], "real")
            )
        given = {"participant": session["participant"], "trial": trial["number"], "choice": choice,
                 "confidence": 80, "milliseconds": 1500, "reasons": ["text"]}  # fmt: skip
        assert client.post("/api/quiz/answer", json=given).status_code == 200
    return str(session["participant"])


def test_answers_survive_a_kill_and_the_report_counts_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiz = read_quiz(folder)
    with client_of(quiz) as client:
        good = answer_all(client, quiz)
        answer_all(client, quiz, wrong=3)
        answer_all(client, quiz, wrong=12, attentive=False)
        begun = client.post("/api/quiz/begin", json={"consent": True}).json()
        end = client.get(f"/api/quiz/end/{good}").json()
    assert end["you"]["value"] == 1 and end["you"]["total"] == 12 and end["you"]["low"] < 1
    assert end["everyone"]["total"] == 24 and end["everyone"]["value"] == 9 / 24
    assert end["detectors"]["stub"]["value"] == pytest.approx(11 / 12)
    assert set(end["kinds"]) == {"art", "photo"} and end["reference"] == 0.387
    with (folder / ANSWERS).open("a") as stream:
        stream.write('{"event": "answ')  # as if killed while writing
    with client_of(read_quiz(folder)) as client:  # a new server knows all of it
        assert client.get(f"/api/quiz/end/{good}").json() == end
        assert client.get(f"/api/quiz/session/{begun['participant']}").json()["done"] == []
    for line in (folder / ANSWERS).read_text().splitlines():
        assert "127.0.0.1" not in line and json.loads(line)["event"] in ("begin", "answer")

    run = script(capsys, "quiz.py: ", program.main)
    done = run("report", folder)
    assert (done.status, done.out) == (0, f"{folder / 'report.html'}\n"), done.err
    report = (folder / "report.md").read_text()
    assert "1 people missed an attention check" in report
    assert "| answers | 24 |" in report and "| right, percent | 87.5 [" in report
    assert (folder / "report_kinds.png").read_bytes()[1:4] == b"PNG"
    people = list(csv.DictReader((folder / "people.csv").open()))
    assert [(row["answers"], row["right"]) for row in people] == [("12", "12"), ("12", "9")]
    shown = list(csv.DictReader((folder / "people_by_picture.csv").open()))
    assert len(shown) == 12 and all(row["stub"] and row["people"] for row in shown)

    out = folder / "good.csv"
    assert run("export", folder, "--participant", good, "--output", out).status == 0
    scores = {row["key"]: float(row["score"]) for row in csv.DictReader(out.open())}
    truth = {picture.key: picture.label for picture in quiz.pictures.values()}
    assert {key: score > 0.5 for key, score in scores.items()} == {
        key: bool(label) for key, label in truth.items()
    }
    from scripts.leaderboard import board_of

    board = board_of([str(folder / "detectors" / "stub"), f"a person={out}"], resamples=20)
    assert [s.entry.name for s in board.standings] == ["a person", "stub"]


def test_answers_that_are_refused(folder: Path) -> None:
    quiz = edit(folder, hint="after", attention=0)
    with client_of(quiz) as client:
        assert client.post("/api/quiz/begin", json={}).status_code == 400
        unasked = {"consent": True, "answers": {"name": "me"}}
        assert client.post("/api/quiz/begin", json=unasked).status_code == 400
        participant = client.post("/api/quiz/begin", json={"consent": True}).json()["participant"]
        good = {"participant": participant, "trial": 0, "choice": "real", "confidence": 60,
                "milliseconds": 10}  # fmt: skip
        for change in (
            {"participant": "x"}, {"trial": 99}, {"trial": -1}, {"choice": "x"}, {"stage": 2},
            {"confidence": 40}, {"milliseconds": -1}, {"reasons": ["x" * 501]},
        ):  # fmt: skip
            answer = client.post("/api/quiz/answer", json=good | change)
            assert answer.status_code == 400 and answer.json()["error"], change
        first = client.post("/api/quiz/answer", json=good).json()
        assert "stub: " in first["hints"][0] and "truth" not in first
        assert client.post("/api/quiz/answer", json=good).status_code == 400
        assert client.post("/api/quiz/answer", json=good | {"stage": 2}).status_code == 200
        huge = good | {"trial": 1, "reasons": ["x" * 70_000]}
        assert client.post("/api/quiz/answer", json=huge).status_code == 413
        assert client.get("/quiz/../pictures.csv").status_code == 404
        assert client.get("/quiz/%2e%2e%2fpictures.csv").status_code == 404
        name = next(iter(quiz.pictures))
        assert client.get(f"/quiz/{name}").headers["content-type"] == "image/jpeg"
        assert client.get("/").url.path == "/quiz"
        assert len((folder / ANSWERS).read_text().splitlines()) == 3


# --- statistics


def test_statistics_of_known_answers(folder: Path) -> None:
    quiz = edit(folder, attention=0)
    with client_of(quiz) as client:
        for wrong in (0, 3):
            answer_all(client, quiz, wrong)
    answers = [a for s in Answers(quiz).sessions.values() for a in s.scored()]
    # Wilson's interval of 8 of 10, as tables have it.
    rate = quiz_stats.wilson(8, 10)
    assert (round(rate.low, 3), round(rate.high, 3)) == (0.490, 0.943)
    assert quiz_stats.wilson(0, 10).low == pytest.approx(0) and math.isnan(
        quiz_stats.wilson(0, 0).value
    )
    counts = Counter((quiz.pictures[a.trial.pictures[0]].label, bool(a.right)) for a in answers)
    z = quiz_stats.NORMAL.inv_cdf
    hits, alarms = (counts[1, True] + 0.5) / 13, (counts[0, False] + 0.5) / 13
    signal = quiz_stats.sensitivity(quiz, answers)
    assert signal.d_prime == pytest.approx(z(hits) - z(alarms))
    assert signal.criterion == pytest.approx(-(z(hits) + z(alarms)) / 2)
    [only] = quiz_stats.calibration(answers)
    assert (only.confidence, only.right, only.total) == (0.8, 21 / 24, 24)
    assert quiz_stats.calibration_error(answers) == pytest.approx(0.075)
    # Two people, twelve pictures, three disagreements: Krippendorff's alpha by its definition.
    said = Counter(a.given.choice for a in answers)
    expected = 2 * said["real"] * said["synthetic"] / (24 * 23)
    assert quiz_stats.agreement(answers) == pytest.approx(1 - (3 / 12) / expected)
    drawn = quiz_stats.interval(answers, 300)
    assert drawn.low < drawn.value == 21 / 24 < drawn.high


# --- in a browser


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    quiz = edit(folder, trials=3, feedback=True, questions=[
        {"name": "age", "text": "Your age", "choices": ["under 30", "30 or older"]}])  # fmt: skip
    with served(application(Parts(quiz=Answers(quiz)), ServerOptions())) as at:
        yield f"{at}quiz"


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def to_the_choice(page: Page, heading: str) -> None:
    """Waits for a trial, and goes on from its heading, which has the focus, to its choices."""
    expect(page.locator("h2")).to_contain_text(heading)
    expect(page.locator("h2")).to_be_focused()
    press(page, "Tab")
    expect(page.locator("input[name=choice]").first).to_be_focused()


def to_the_button(page: Page) -> None:
    """Goes on to the button of a trial, whatever can have the focus before it."""
    button = page.locator("form.trial button")
    for _ in range(12):
        press(page, "Tab")
        if button.evaluate("button => button === document.activeElement"):
            return
    raise AssertionError("the button cannot be reached by Tab")


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
def test_the_whole_course_by_keyboard(
    browser: Browser,  # noqa: F811
    address: str,
    folder: Path,
    width: int,
) -> None:
    with opened(browser, address, width) as page:
        check_accessible(page)
        page.locator("select").focus()
        press(page, "ArrowDown", "Tab", "Enter")
        for position in (1, 2, 3, 4):
            to_the_choice(page, f"Picture {position} of 4")
            if position == 2:
                page.reload()  # in the middle of it
                to_the_choice(page, "Picture 2 of 4")
                check_accessible(page)
            check = page.locator(".check")
            real = "Real" in check.inner_text() if check.count() else True
            press(page, "Space" if real else "ArrowDown")
            expect(page.locator("input[name=choice]").nth(0 if real else 1)).to_be_checked()
            press(page, "Tab", "ArrowRight")
            expect(page.locator("output")).to_have_text("80 %")
            asked = check.count() > 0
            to_the_button(page)
            press(page, "Enter")
            if not asked:
                expect(page.locator("h2")).to_have_text(re.compile(r"Right\.|Not so\."))
                press(page, "Tab", "Enter")
        expect(page.locator("h2")).to_have_text("Thank you.")
        expect(page.locator(".bars").first).to_contain_text("Detector stub")
        check_accessible(page)
    lines = [json.loads(line) for line in (folder / ANSWERS).read_text().splitlines()]
    assert lines[0]["answers"] == {"age": "under 30"} and len(lines) == 5
    assert {line["confidence"] for line in lines[1:]} == {80}
    assert all(line["milliseconds"] > 0 for line in lines[1:])


@pytest.mark.browser
def test_pairs_with_a_hint_and_two_people_at_once(
    browser: Browser,  # noqa: F811
    folder: Path,
) -> None:
    quiz = edit(folder, mode="pair", trials=2, attention=0, hint="after", reasons=[], seconds=60)
    app = application(Parts(quiz=Answers(quiz)), ServerOptions())
    with (
        served(app) as at,
        opened(browser, f"{at}quiz", color_scheme="dark") as one,
        opened(browser, f"{at}quiz", 360) as two,
    ):
        for page in (one, two):
            page.get_by_role("button", name="I agree, begin").click()
        for position in (1, 2):
            for page in (one, two):
                to_the_choice(page, f"Pair {position} of 2")
                expect(page.locator(".clock")).to_contain_text("s left")
                press(page, "Space", "Tab", "Tab", "Enter")
            for page in (one, two):
                expect(page.locator(".hint")).to_contain_text("stub")
                expect(page.get_by_label("The left one")).to_be_checked()
                check_accessible(page)
                page.get_by_label("The right one").check()
                page.get_by_role("button", name="This is my final answer").click()
        for page in (one, two):
            expect(page.locator("h2")).to_have_text("Thank you.")
    sessions = Answers(read_quiz(folder)).sessions.values()
    assert [len(session.answers) for session in sessions] == [4, 4]
    assert all(s.answers[0, 1].right != s.answers[0, 2].right for s in sessions)
