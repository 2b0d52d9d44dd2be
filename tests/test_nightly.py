"""Every night has a job for every test: for slow ones, for random damage in many examples, and for
those that skip without a package or a program that livesr can do without.
"""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
NIGHTLY = REPOSITORY / ".github" / "workflows" / "nightly.yml"
MODULES = sorted(p for p in (REPOSITORY / "tests").rglob("test_*.py") if p != Path(__file__))
WITHOUT_A_JOB = {"cupy", "tensorrt"}
"""Packages for a GPU, which the computers of the jobs lack."""
PROGRAMS = {
    "xvfb-run": "xvfb",
    '"java"': "default-jre",
    'find_spec("bioformats")': "python-bioformats",
    "ij.jar": "libij-java",
    "needs_triton()": "nvidia-pytriton",
    "LIVESR_MLSERVER": "mlserver",
    '"mount"': "sudo -E env",
}
"""What is in the text of a file of tests, and in that of a job in which it does not skip."""
LOOKS = re.compile("importorskip|find_spec")
MARKS = {"slow": {"slow"}, "not slow": {"other"}, "slow or not slow": {"slow", "other"}}


def named(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements}


class Job:
    """What a job installs, and which tests it runs."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.text = "\n".join(step.get("run", "") for step in job["steps"])
        self.lines = [shlex.split(line, comments=True) for line in self.text.splitlines()]
        self.examples = "LIVESR_EXAMPLES" in job.get("env", {})
        words = {word.partition(" @")[0] for line in self.lines for word in line}
        extras = ",".join(re.findall(r"\.\[([\w,]+)\]", self.text)).split(",")
        self.has = {canonicalize_name(word) for word in words}
        self.has |= named(one for extra in extras if extra for one in EXTRAS[extra])

    def runs(self, module: Path, *, examples: bool = False) -> set[str]:
        """Return which tests of a file it runs: "slow", "other"."""
        kinds: set[str] = set()
        for line in (line for line in self.lines if "pytest" in line):
            places = [word for word in line if word.startswith("tests")] or ["tests"]
            many = self.examples or any(word.startswith("LIVESR_EXAMPLES=") for word in line)
            if any(module.is_relative_to(REPOSITORY / p) for p in places) and many >= examples:
                kinds |= MARKS[line[line.index("-m") + 1] if "-m" in line else "not slow"]
        return kinds


JOBS = [Job(job) for job in yaml.safe_load(NIGHTLY.read_text(encoding="utf-8"))["jobs"].values()]


def text(module: Path) -> str:
    return module.read_text(encoding="utf-8")


def kinds(module: Path) -> set[str]:
    return {"slow", "other"} if "mark.slow" in text(module) else {"other"}


def brought(names: Iterable[str]) -> set[str]:
    """Return distributions, and those that they bring."""
    known, left = set(), list(names)
    while left:
        if (name := canonicalize_name(left.pop())) not in known:
            known.add(name)
            with suppress(metadata.PackageNotFoundError):
                asked = [Requirement(one) for one in metadata.requires(name) or ()]
                left += [r.name for r in asked if not r.marker or r.marker.evaluate({"extra": ""})]
    return known


def looked_for(module: Path) -> set[str]:
    """Return the packages that tests of a file look for, and skip without."""
    names = set()
    for node in ast.walk(ast.parse(text(module))):
        if (
            isinstance(node, ast.For)
            and isinstance(node.iter, ast.Tuple)
            and LOOKS.search(ast.unparse(node))
        ):
            names |= {e.value for e in node.iter.elts if isinstance(e, ast.Constant)}
        if isinstance(node, ast.Call) and LOOKS.search(ast.unparse(node.func)):
            names |= {e.value for e in node.args[:1] if isinstance(e, ast.Constant)}
    return {name.partition(".")[0] for name in names} - {"livesr", "bioformats"} - WITHOUT_A_JOB


def test_every_slow_test_runs() -> None:
    (whole,) = (job for job in JOBS if "pytest -m slow" in job.text)
    assert "dev" in whole.text
    assert all("slow" in whole.runs(module) for module in MODULES)


def test_every_test_has_a_job_with_what_it_skips_without() -> None:
    there = brought(named([*PROJECT["dependencies"], *EXTRAS["dev"]]))
    of, seen = metadata.packages_distributions(), set()
    for module in MODULES:
        packages = {
            canonicalize_name(name)
            for name in looked_for(module)
            if not there & {canonicalize_name(d) for d in of.get(name, [name])}
        }
        programs = {program for sign, program in PROGRAMS.items() if sign in text(module)}
        if packages | programs:
            seen |= packages | programs
            assert any(
                kinds(module) <= job.runs(module)
                and packages <= job.has
                and all(program in job.text for program in programs)
                for job in JOBS
            ), f"{module.name} is in no job with {packages | programs}"
    assert {"napari", "nanopyx", "pyside6", "pymmcore-gui", *PROGRAMS.values()} <= seen


def test_random_damage_is_tried_many_times() -> None:
    modules = [module for module in MODULES if "@examples(" in text(module)]
    assert len(modules) > 5
    for module in modules:
        tried = set().union(*(job.runs(module, examples=True) for job in JOBS))
        assert kinds(module) <= tried, module.name


def test_the_screen_is_that_of_the_run_of_every_change() -> None:
    (screen,) = re.findall(r"screen=\((.*)\)", text(REPOSITORY / ".ci" / "run"))
    (job,) = (job for job in JOBS if "xvfb" in job.text)
    assert {*screen.split()} - job.has == {"chromium"}  # the computers of the jobs have Chrome
