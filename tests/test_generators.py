"""Generators by date and family: the file, dates that data state, reports by year, --until."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from cli_runner import Cli, cli, write_weights
from conftest import make_picture
from report_cases import row, section

from datasets import Label, LayoutError, Record, csv_file
from datasets._dates import date, is_by
from engine.config import ConfigError
from engine.evaluation import benchmark, generators
from engine.evaluation.analysis import View, analyse
from engine.evaluation.generators import Release
from engine.reporting import plots, report, results
from engine.scoring.table import ScoreRow
from engine.weights.loaded import card_of

__all__ = ["cli"]  # a fixture


def fake(key: str, generator: str, released: str = "") -> Record:
    return Record(key, Path(key), Label.FAKE, "", generator, released=released)


# --- dates and the file


def test_a_date_is_a_year_or_a_month() -> None:
    assert date("2023") == "2023" and date("2023-04") == "2023-04"
    for text in ("23", "2023-13", "2023-4", "2023-04-01", "04/2023", "", "２０２３"):
        with pytest.raises(ValueError, match="YYYY-MM"):
            date(text)


@pytest.mark.parametrize(
    ("released", "until", "by"),
    [
        ("2022-08", "2022", True), ("2022-08", "2022-08", True), ("2022-08", "2022-07", False),
        ("2023", "2023", True), ("2023", "2023-06", False), ("2023", "2023-12", True),
        ("2024-01", "2023", False), ("", "2030", False),
    ],
)  # fmt: skip
def test_a_year_alone_may_be_its_last_month(released: str, until: str, by: bool) -> None:
    assert is_by(released, until) == by


@pytest.mark.parametrize(
    ("name", "family", "released"),
    [
        ("stabilityai@stable-diffusion-2-1", "latent diffusion", "2022-12"),
        ("black-forest-labs/FLUX.1-dev", "latent diffusion", "2024-08"),
        ("stable_diffusion_v_1_4", "latent diffusion", "2022-08"),
        ("sd3-medium(replicate)", "latent diffusion", "2024-06"),
        ("ProGAN", "GAN", "2017-10"),
        ("mjv61", "commercial", "2024-07"),
        ("midjourney", "commercial", ""),  # of no stated version
        ("photoshop", "", ""),
        ("", "", ""),
    ],
)
def test_generators_are_found_by_any_spelling(name: str, family: str, released: str) -> None:
    assert generators.find(name) == Release(family, released)


def test_most_generators_of_the_benchmarks_are_known() -> None:
    names = [
        name for each in map(benchmark.load, benchmark.available()) for name in each.generators
    ]
    unknown = {name for name in names if not generators.find(name).family}
    assert len(names) > 80 and not unknown


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{family: GAN, released: 2020-01}", "source"),
        ("{family: GAN, source: a page}", "released"),
        ("{family: GAN, released: 2020-01, source: arXiv 2002.01234}", "2020-02"),
        ("{family: GAN, released: 2020-13, source: a page}", "YYYY-MM"),
        ("{family: magic}", "'GAN'"),
        ("{family: GAN, also: [old-gan]}", "old-gan"),
        ("{family: GAN, born: 2020}", "born"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, entry: str, said: str) -> None:
    file = tmp_path / "g.yaml"
    file.write_text(f"generators:\n  OldGAN: {{family: GAN}}\n  new: {entry}\n")
    with pytest.raises(ConfigError, match=said):
        generators.read(file)


def test_what_the_data_state_counts_first() -> None:
    stated = {"sd14": "2022-09"}
    assert generators.release(fake("a", "sd14"), {}).date == "2022-08"
    assert generators.release(fake("a", "sd14"), stated) == Release("latent diffusion", "2022-09")
    assert generators.release(fake("a", "sd14", "2021"), stated).date == "2021"
    assert generators.releases([fake("a", "mine", "2021"), fake("b", "mine")], {}) == {
        "a": Release("", "2021")
    }


def test_a_csv_states_dates(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("image,class,released\na.png,1,2024-03\nb.png,0,1999\nc.png,1,\n")
    assert [each.released for each in csv_file.records(file)] == ["2024-03", "", ""]
    file.write_text("image,class,released\na.png,1,3/2024\n")
    with pytest.raises(LayoutError, match=r"a\.png.*released.*YYYY-MM.*'3/2024'"):
        csv_file.records(file)


# --- results by year and family

KNOWN = {"progan": "2017-10", "sd14": "2022-08", "sdxl": "2023-07", "flux": "2024-08", "who": ""}


def table() -> list[ScoreRow]:
    """Real pictures, and six of each of KNOWN, the later the harder to tell."""
    rows = [row(0, -2 + 0.1 * n, "", "", f"r{n}") for n in range(30)]
    for place, name in enumerate(KNOWN):
        rows += [row(1, 2 - place + 0.3 * n, "", name, f"{name}{n}") for n in range(6)]
    return rows


def view(until: str = "") -> View:
    rows = [fake(each.key, each.generator) for each in table() if each.label]
    return View(releases=generators.releases(rows, {}), until=until)


def test_years_and_families_stand_against_all_real_pictures() -> None:
    analysis = analyse(table(), 0.5, 20, view=view())
    assert list(analysis.years) == ["2017", "2022", "2023", "2024", "unknown date"]
    assert list(analysis.families) == ["GAN", "latent diffusion", "unknown family"]
    latent = analysis.families["latent diffusion"]
    assert (latent.generators, latent.measured.n_real, latent.measured.n_synthetic) == (3, 30, 18)
    expected = analyse([r for r in table() if r.generator in ("", "progan")], 0.5, 20).pooled
    assert analysis.years["2017"].measured == expected
    assert not any(group.clustered or group.late for group in analysis.years.values())
    assert analyse(table(), 0.5, 20).years == {}


def test_five_generators_of_a_year_get_the_wider_interval() -> None:
    rows = [each for each in table() if not each.label]
    rows += [row(1, n - 2.0, "", f"g{n}", f"g{n}{k}") for n in range(5) for k in range(6)]
    same = {each.key: Release("GAN", "2020") for each in rows if each.label}
    analysis = analyse(rows, 0.5, 200, view=View(releases=same))
    group = analysis.years["2020"]
    assert group.clustered and group.measured.estimates == analysis.clustered


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without plots, which take most of the time."""
    monkeypatch.setattr(plots, "draw", lambda _: {})


def test_what_came_after_the_training_is_marked(tmp_path: Path, undrawn: None) -> None:
    analysis = analyse(table(), 0.5, 20, view=view("2023-06"))
    assert {name: group.late for name, group in analysis.years.items()} == {
        "2017": False, "2022": False, "2023, after training": True, "2024, after training": True,
        "unknown date": False, "all up to 2023-06": False, "all after 2023-06": True,
    }  # fmt: skip
    assert analysis.years["all after 2023-06"].generators == 2
    report.write_report(tmp_path, table(), 0.5, {}, "T", analysis)
    text = section((tmp_path / "report.md").read_text("utf-8"), "Year and family")
    assert "2024, after training" in text and "2023-06" in text and "latent diffusion" in text
    assert (plots.years(analysis) or b"").startswith(b"\x89PNG")
    found = results.metrics_json(analysis)
    assert found["trained_until"] == "2023-06"
    assert found["years"]["2017"]["metrics"]["AUROC"][0] == 1.0
    assert found["years"]["all after 2023-06"]["after_training"]


def test_one_year_makes_no_plot_and_no_date_no_section(tmp_path: Path, undrawn: None) -> None:
    rows = [each for each in table() if each.generator in ("", "progan")]
    assert plots.years(analyse(rows, 0.5, 20, view=view())) is None
    report.write_report(tmp_path, rows, 0.5, {}, "T")
    assert "Year and family" not in (tmp_path / "report.md").read_text("utf-8")


# --- --until


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a detector that has no frozen part, so that what it learns is a file of its own."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return write_weights(path, "npr", extra={"until": "2009"})


@pytest.fixture
def dated(tmp_path: Path) -> Path:
    """A CSV of real pictures, of two generators that the file knows, and of two that it does not,
    of one of which the CSV has the date."""
    lines = [["image", "class", "generator", "released"]]
    for place, (name, released) in enumerate(
        {"": "", "progan": "", "sdxl": "", "mine": "2021-05", "who": ""}.items()
    ):
        for n in range(8 if name == "" else 4):
            image = f"{name or 'real'}{n}.png"
            make_picture(10 * place + n, fake=bool(name)).save(tmp_path / image)
            lines.append([image, str(int(bool(name))), name, released])
    with (tmp_path / "set.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(lines)
    return tmp_path / "set.csv"


TRAIN = (
    "--phase", "train", "--epochs", 1, "--set", "train.augment=false", "train.report=false",
    "--set", "data.val_fraction=0.5",
)  # fmt: skip


def test_training_until_a_year_and_its_report(cli: Cli, dated: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = cli(*TRAIN, "--data", dated, "--until", 2022, "--output", out)
    assert done.status == 0, done.err
    told = next(line for line in done.log if line.startswith("--until 2022 leaves out"))
    assert "2 pictures of generators of later date (sdxl)" in told
    assert "2 pictures of generators of unknown date (who)" in told
    assert json.loads((out / "run.json").read_text())["until"] == "2022"
    card = card_of(out / "best.safetensors")
    assert card is not None and card.extra is not None
    assert (card.extra["until"], card.extra["trained_on"]) == ("2022", ["mine", "progan"])
    evaluated = tmp_path / "eval"
    words = ("--phase", "eval", "--data", dated, "--weights", out / "best.safetensors")
    assert cli(*words, "--cache", "none", "--output", evaluated).status == 0
    years = json.loads((evaluated / "metrics.json").read_text())["years"]
    assert [name for name, group in years.items() if group["after_training"]] == [
        "2023, after training", "all after 2022",
    ]  # fmt: skip
    assert years["2021"]["synthetic"] == 4
    # To go on from them up to an earlier year would keep what they learnt of the later one.
    again = (*TRAIN, "--data", dated, "--weights", out / "best.safetensors")
    done = cli(*again, "--until", 2021, "--output", tmp_path / "earlier")
    assert "--until 2021" in done.complaint and "best.safetensors" in done.complaint
    assert cli(*again, "--until", 2023, "--output", tmp_path / "later").status == 0


def test_without_a_generator_of_that_time_nothing_is_trained(
    cli: Cli, dated: Path, tmp_path: Path
) -> None:
    done = cli(*TRAIN, "--data", dated, "--until", 2010, "--output", tmp_path / "run")
    assert "found 4 real and 0 synthetic" in done.complaint and "--until 2010" in done.complaint
