"""`livesr demo` with an engine of other structures than the default's."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from livesr.cli import app


def test_the_cell_has_what_the_engine_separates(tmp_path):
    arguments = ["--engine", "imcsr-ccp-mt-er", "--size", "96", "--frames", "5"]
    kept = ["--store", str(tmp_path / "run.ome.zarr"), "--picture", str(tmp_path / "cell.png")]
    result = CliRunner().invoke(app, ["demo", *arguments, *kept, "--policy", "complete", "--json"])
    assert result.exit_code == 0, result.output
    score = json.loads(result.stdout)["score"]
    assert tuple(score) == ("Microtubules", "ER", "CCPs")
    assert score["CCPs"]["pcc"] > score["CCPs"]["input_pcc"]
    assert (tmp_path / "cell.png").stat().st_size > 10_000
