"""The output folder of a run: who may write there, its log file, its run.json.

Every phase opens its folder here, before it computes anything. Nothing here deletes what a run did
not write, or lets a resumed run go on with settings that change its results.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..config import Config, ConfigError
from ..plain_data import read_json
from .files import clear_leftovers, write_file
from .program import OneLine

RUN = "run.json"
LOCK = ".lock"
# The processes that decode for a run that was killed notice it, and let go, after five seconds.
WAIT_SECONDS = 15.0
log = logging.getLogger(__name__)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, whole or not at all; numbers that JSON lacks (NaN) are an error."""
    text = json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False)
    write_file(path, text + "\n")


def peak_memory() -> float | None:
    """Most memory, in GiB, that this process has held so far; None on systems that do not say."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)


def take(folder: Path) -> AbstractContextManager[Any]:
    """A lock on a folder against other runs, until the context ends or the process does.

    Raises:
        ConfigError: another run has it.
    """
    lock = FileLock(folder / LOCK)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log.info("%s is in use by another run: waiting for its end", folder)
    except NotImplementedError:
        log.warning("%s: no locks on this file system: let no other run write there", folder)
        return nullcontext()
    try:
        return lock.acquire(timeout=WAIT_SECONDS)
    except Timeout as error:
        raise ConfigError(
            f"{folder} is in use by another run: let that end, or name another --output"
        ) from error


def _of_a_run(folder: Path) -> bool:
    """Whether a folder below an output folder is what a run wrote there, which has no folders."""
    return (folder.parent / RUN).is_file() and all(path.is_file() for path in folder.iterdir())


def check_output(folder: Path, owned: Sequence[str], resume: bool, overwrite: bool) -> list[str]:
    """Names of what an earlier run left in an output folder, which stays as it is.

    Args:
        folder, owned, resume, overwrite: as `open_output` takes them.

    Raises:
        ConfigError: as `open_output` does, except that another run has the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder}: expected a folder; found a file")
    leftovers = [name for name in owned if (folder / name).exists()]
    for path in (folder / name for name in leftovers):
        # Pictures may lie in a folder of the same name: these are neither kept nor deleted.
        if path.is_dir() and not _of_a_run(path):
            raise ConfigError(
                f"--output {folder}: expected no {path.name}/ there but a run's; found another "
                "folder: name another --output"
            )
    if leftovers and not (resume or overwrite):
        raise ConfigError(
            f"{folder} holds an earlier run ({leftovers[0]}): "
            "add --resume to go on with it, --overwrite to start afresh, or name another --output"
        )
    return leftovers


def check_mode(folder: Path, streamed: bool) -> None:
    """Raises ConfigError for an output folder with a run of phase test in the other mode, with
    --stream or without it: the tables of either would stay beside those of the other."""
    path = folder / RUN
    try:
        info = dict(read_json(path)) if path.is_file() else {}
    except (ValueError, TypeError):  # damaged, which `begin` tells of, or overwritten
        return
    if info and ("stream" in info) != streamed:
        other = "with" if streamed else "without"
        raise ConfigError(
            f"--output {folder}: expected no run but one {other} --stream; found another: name "
            "another --output"
        )


def open_output(
    folder: Path, owned: Sequence[str], resume: bool, overwrite: bool
) -> AbstractContextManager[Any]:
    """The context in which an output folder is this run's, made ready.

    Args:
        folder: made when it is not there.
        owned: names of the files that a run writes into it, and of the folders.
        resume: keep them, the run goes on.
        overwrite: delete them, the run starts afresh.

    Raises:
        ConfigError: it holds an earlier run and neither was asked for, or a folder of an owned name
            that is no run's; another run has it; or it is a file.
    """
    check_output(folder, owned, resume, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    lock = take(folder)
    clear_leftovers(folder, owned)
    # Once more: it may have been another run's until now.
    leftovers = check_output(folder, owned, resume, overwrite)
    if overwrite:
        for name in leftovers:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return lock


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """A context in which log lines go to a file too, each as in CO-SPY's log files."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    form = "%(asctime)s | %(levelname)s | %(module)s:%(lineno)d | %(message)s"
    handler.setFormatter(OneLine(form, "%m-%d at %H:%M:%S"))
    logging.getLogger("engine").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("engine").removeHandler(handler)
        handler.close()


def _entry(info: Any, name: str) -> Any:
    """The value `a.b` of nested dictionaries; None where there is none."""
    for key in name.split("."):
        info = info.get(key) if isinstance(info, dict) else None
    return info


def differing_entries(a: Any, b: Any, names: Sequence[str]) -> list[str]:
    """Dotted names of the entries, below those of `names`, in which two contents of run.json
    differ; `config.` is left out, for people know settings without it.

    Args:
        a, b: the contents; an entry that one lacks is None there.
        names: dotted names.
    """
    leaves = (leaf for k in names for leaf in differing(_entry(a, k), _entry(b, k), k))
    return [leaf.removeprefix("config.") for leaf in leaves]


def begin(
    folder: Path, info: dict[str, Any], resume: bool, same: Sequence[str], table: str
) -> None:
    """Writes run.json before the first score, so that a resumed run cannot mix two.

    Args:
        folder: of the run.
        info: the content of run.json.
        resume: compare with the run that is there.
        same: dotted names of the entries that the two must have in common.
        table: name of the file that the scores are in.

    Raises:
        ConfigError: the run to resume differs in one of `same`, and the message says in which; or
            it does not say what it was.
    """
    path = folder / RUN
    if resume and path.exists():
        try:
            earlier = dict(read_json(path))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}: is damaged: use --overwrite") from error
        # As JSON has them: tuples are lists there.
        if names := differing_entries(earlier, json.loads(json.dumps(info)), same):
            raise ConfigError(
                f"--resume: the run in {folder} had other {', '.join(names)}: "
                "give the same, or use --overwrite or another --output"
            )
    elif resume and (folder / table).exists():
        raise ConfigError(
            f"--resume: {folder} has {table}, but not the {RUN} that says how it was made: "
            "use --overwrite or another --output"
        )
    write_json(path, info)


# Settings that a resumed run may have otherwise: they change no weight.
FREE = tuple(
    f"train.{name}" for name in ("save_every", "save_epochs", "publish", "max_bad", "report")
)


def differing(old: Any, new: Any, name: str = "") -> list[str]:
    """Dotted names of the leaves in which two nested dictionaries differ.

    Args:
        old, new: the dictionaries.
        name: of the entry that they stand in, which leads all names; '' = none.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        below = f"{name}." if name else ""
        return [leaf for k in keys for leaf in differing(old.get(k), new.get(k), f"{below}{k}")]
    return [] if old == new else [name]


def other_settings(then: Mapping[str, Any], config: Config) -> list[str]:
    """Dotted names of the settings in which a run's configuration, as JSON keeps it, differs from
    another, without those that change no weight."""
    now = json.loads(json.dumps(config.as_dict()))
    return [key for key in differing(then, now) if key not in FREE]
