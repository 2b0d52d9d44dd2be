"""The training loop on problems of a few seconds.

It learns, resumes exactly and notices collapse.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter
from torch import nn

from livesr.training import networks
from livesr.training.batches import augment
from livesr.training.journal import Progress, draw_curves
from livesr.training.scores import TrainingCollapsedError, validation_scores
from livesr.training.settings import TrainConfig
from livesr.training.sources import Pairs
from livesr.training.trainer import Trainer

TINY = {
    "frames": 1,
    "channels": 2,
    "width": 8,
    "groups": 1,
    "blocks": 1,
    "unshuffle": 2,
    "head": "partition",
}


class SpotsAndBlobs:
    """Two structures of different size, added up: small spots and large blobs."""

    def batch(self, rng: np.random.Generator, size: int, patch: int) -> Pairs:
        points = (rng.random((size, 2, patch, patch)) < 0.02).astype(np.float32)
        spots, blobs = (
            gaussian_filter(points[:, 0], (0, 1, 1)),
            gaussian_filter(points[:, 1], (0, 3, 3)),
        )
        targets = np.stack([5 * spots, 5 * blobs], 1)
        return targets.sum(1, keepdims=True), targets

    def validation(self, n: int) -> Pairs:
        return self.batch(np.random.default_rng(99), n, 32)


class DrawnTwice(SpotsAndBlobs):
    """Fails when its batches run out, as a source on a vanished disk does."""

    def __init__(self) -> None:
        self.left = 2

    def batch(self, rng: np.random.Generator, size: int, patch: int) -> Pairs:
        if size == 4:
            self.left -= 1
        if self.left < 0:
            raise OSError("the disk is gone")
        return super().batch(rng, size, patch)


def config(**changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "parameters": TINY,
        "steps": 12,
        "batch": 4,
        "patch": 32,
        "warmup_steps": 4,
        "threads": 1,
        "precision": "fp32",
        "log_every": 1,
        "validate_every": 4,
        "validation_pairs": 4,
        "checkpoint_every": 5,
    }
    return TrainConfig.model_validate({**settings, **changes})


def trainer(folder: Path, **changes: object) -> Trainer:
    return Trainer(config(**changes), SpotsAndBlobs(), SpotsAndBlobs(), folder)


def losses(folder: Path) -> list[tuple[str, ...]]:
    with (folder / "log.csv").open(newline="") as file:
        return [
            tuple(v for k, v in row.items() if k not in {"minutes", "patches_per_s", "waiting"})
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize(
    ("head", "steps", "lr"), [("partition", 150, 8e-3), ("sigmoid", 400, 4e-3)]
)
def test_it_learns_to_separate(tmp_path: Path, head: str, steps: int, lr: float) -> None:
    reports: list[Progress] = []
    run = trainer(
        tmp_path, steps=steps, batch=8, lr=lr, ema_decay=0.95, log_every=50, validate_every=200,
        parameters={**TINY, "head": head},
    )  # fmt: skip
    run.run(reports.append)
    scores = reports[-1].validation
    assert min(scores["pcc_0"], scores["pcc_1"]) > 0.7
    assert reports[-1].losses["loss"] < 0.6 * reports[0].losses["loss"]
    assert reports[-1].fraction == 1


def test_bf16_and_channels_last_learn_too(tmp_path: Path) -> None:
    reports: list[Progress] = []
    trainer(tmp_path, precision="bf16", steps=60, lr=4e-3, validate_every=30).run(reports.append)
    assert reports[-1].losses["loss"] < reports[0].losses["loss"]


def resumed_equals_whole(make: Callable[[str], Trainer], folder: Path, killed_at: int) -> None:
    """Compare a run "whole" in `folder` with one that was "killed" at a step, and resumed."""
    whole = make("whole").run()

    def kill(progress: Progress) -> None:
        if progress.step == killed_at:  # the last checkpoint is an earlier one
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make("killed").run(kill)
    resumed = make("killed").run().state_dict()
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed[name]), name
    assert losses(folder / "killed") == losses(folder / "whole")


@pytest.mark.parametrize(
    "optimiser", [*(pytest.param(o, marks=pytest.mark.slow) for o in ("adam", "adamw")), "muon"]
)
@pytest.mark.parametrize(
    "schedule",
    ["cosine", *(pytest.param(s, marks=pytest.mark.slow) for s in ("plateau", "constant"))],
)
def test_a_killed_run_resumed_equals_one_that_was_not(
    tmp_path: Path, optimiser: str, schedule: str
) -> None:
    # Reports every 3 steps: the means of the line after the checkpoint of step 5 begin before it.
    settings = {
        "optimiser": optimiser,
        "schedule": schedule,
        "patience_steps": 1,
        "log_every": 3,
        "validate_every": 6,
    }
    resumed_equals_whole(lambda run: trainer(tmp_path / run, **settings), tmp_path, killed_at=9)
    assert len(losses(tmp_path / "whole")) == 4


@pytest.mark.parametrize(
    "loss", ["adversarial", pytest.param("combination", marks=pytest.mark.slow)]
)
def test_what_else_learns_is_resumed_as_well(tmp_path: Path, loss: str) -> None:
    """A discriminator with its optimiser, and the statistics of batch normalisation."""
    settings: dict[str, object] = {"loss": {"kind": loss, "discriminator_width": 4}, "steps": 8}
    if loss == "combination":
        settings |= {"architecture": "memnet", "parameters": MEMNET}
    resumed_equals_whole(
        lambda run: enlarging(tmp_path / run, loss, settings), tmp_path, killed_at=7
    )


MEMNET = {"scale": 1, "blocks": 1, "recursions": 2, "width": 4}


class OneSpots(SpotsAndBlobs):
    """The frame is the input, the spots in it the output."""

    def batch(self, rng: np.random.Generator, size: int, patch: int) -> Pairs:
        frames, targets = super().batch(rng, size, patch)
        return frames[:, :1], targets[:, :1]

    def validation(self, n: int) -> Pairs:
        frames, targets = super().validation(n)
        return frames[:, :1], targets[:, :1]


def enlarging(folder: Path, loss: str, settings: dict[str, object]) -> Trainer:
    if loss == "adversarial":
        return trainer(folder, **settings)
    return Trainer(config(**settings), OneSpots(), OneSpots(), folder)


def test_a_discriminator_makes_it_sharper_and_learns_to_tell(tmp_path: Path) -> None:
    reports: list[Progress] = []
    loss = {"kind": "adversarial", "discriminator_width": 4, "discriminator_lr": 1e-3}
    trainer(tmp_path, steps=40, loss=loss, lr=1e-5, log_every=10, validate_every=40).run(
        reports.append
    )
    first, last = reports[0].losses, reports[-1].losses
    assert last["discriminator"] < first["discriminator"], "the generator hardly learns here"
    assert last["adversarial"] > first["adversarial"]
    assert {"mse", "structure"} <= set(last)


def test_batch_normalisation_is_averaged_as_it_is(tmp_path: Path) -> None:
    run = enlarging(tmp_path, "l1", {"architecture": "memnet", "parameters": MEMNET, "steps": 4})
    average = run.run()
    means = [b for name, b in average.named_buffers() if name.endswith("running_mean")]
    assert all(mean.abs().max() > 0 for mean in means[:1])
    for slow, fast in zip(average.buffers(), run.network.buffers(), strict=True):
        assert torch.equal(slow, fast)


class Halved(OneSpots):
    """The frame at half of its sampling is the input, itself the output; always the same ones."""

    def batch(self, rng: np.random.Generator, size: int, patch: int) -> Pairs:
        targets = super().batch(np.random.default_rng(7), size, 2 * patch)[1]
        return targets.reshape(size, 1, patch, 2, patch, 2).mean((3, 5)), targets

    def validation(self, n: int) -> Pairs:
        return self.batch(np.random.default_rng(98), n, 16)


SMALL_CLASSIC: dict[str, dict[str, object]] = {
    "srcnn": {"width": 4},
    "fsrcnn": {"width": 4, "shrunk": 2, "mappings": 1},
    "espcn": {"widths": (4, 4)},
    "vdsr": {"width": 4, "depth": 3},
    "drcn": {"width": 4, "recursions": 2},
    "drrn": {"width": 4, "units": 2},
    "srresnet": {"scale": 2, "width": 4, "blocks": 1},
    "srdensenet": {"scale": 2, "blocks": 1, "layers": 2, "growth": 4, "width": 8},
    "memnet": {"blocks": 1, "recursions": 2, "width": 4},
    "mdsr": {"blocks": 1, "width": 4},
    "rdn": {"blocks": 1, "layers": 2, "growth": 4, "width": 4},
    "unet": {"frames": 1, "channels": 1, "width": 4, "depth": 1, "scale": 2},
    "rcan": {"frames": 1, "channels": 1, "width": 4, "groups": 1, "blocks": 1, "scale": 2},
    "dfcan": {"frames": 1, "channels": 1, "width": 4, "groups": 1, "blocks": 1, "scale": 2},
}


@pytest.mark.parametrize("architecture", SMALL_CLASSIC)
def test_every_network_that_enlarges_learns_for_a_few_steps(
    tmp_path: Path, architecture: str
) -> None:
    reports: list[Progress] = []
    settings = config(
        architecture=architecture,
        parameters=SMALL_CLASSIC[architecture],
        patch=16,
        steps=16,
        lr=3e-3,
        warmup_steps=0,
        log_every=4,
        validate_every=16,
        loss={"structure": 0.0},
    )
    Trainer(settings, Halved(), Halved(), tmp_path).run(reports.append)
    assert reports[-1].losses["loss"] < reports[0].losses["loss"]


def test_views_of_no_teacher_are_refused() -> None:
    with pytest.raises(ValueError, match="teacher_views are of a teacher"):
        config(teacher_views=2)


def test_a_teacher_and_a_discriminator_are_not_both_taken() -> None:
    with pytest.raises(ValueError, match="give one"):
        config(teacher="x.pt", loss={"kind": "adversarial"})


def test_slices_equal_one_run(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", log_every=3).run()
    for number in range(1, 100):  # longer and longer: a busy computer comes to the end as well
        sliced = trainer(tmp_path / "sliced", log_every=3)
        average = sliced.run(minutes=1e-3 * number)
        if sliced.finished:
            break
    assert (tmp_path / "sliced" / "final.pt").exists()
    assert losses(tmp_path / "sliced") == losses(tmp_path / "whole")
    for a, b in zip(whole.parameters(), average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_slice_that_ends_early_leaves_no_final_weights(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.run(minutes=1e-9)
    assert not run.finished
    assert (tmp_path / "checkpoint.pt").exists()
    assert not (tmp_path / "final.pt").exists()


def test_loaders_and_reading_ahead_change_nothing(tmp_path: Path) -> None:
    trainer(tmp_path / "1", read_ahead=1, loaders=1).run()
    trainer(tmp_path / "5", read_ahead=5, loaders=3).run()
    assert losses(tmp_path / "1") == losses(tmp_path / "5")


class Slow(SpotsAndBlobs):
    """A source that takes 50 ms a batch."""

    def batch(self, rng: np.random.Generator, size: int, patch: int) -> Pairs:
        time.sleep(0.05)
        return super().batch(rng, size, patch)


def test_a_starving_loader_shows(tmp_path: Path) -> None:
    reports: list[Progress] = []
    Trainer(config(loaders=1, validate_every=12), Slow(), SpotsAndBlobs(), tmp_path).run(
        reports.append
    )
    assert max(report.waiting for report in reports) > 0.2
    assert all(0 <= report.waiting <= 1 for report in reports)


def test_curves_are_named_by_their_structures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.csv"
    log.write_text(
        "attempt,step,patches,loss,val_nrmse,val_pcc_0,val_pcc_1,val_pcc\n0,10,40,0.1,0.2,0.5,0.7,0.6\n"
    )
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    draw_curves(log, tmp_path / "curves.png", ("tubules", "sheets"))
    labels = [line.get_label() for axes in drawn[0].axes for line in axes.lines]
    assert labels == ["loss", "val_nrmse", "tubules", "sheets", "mean"]


@pytest.mark.draws
def test_curves_and_validation_are_pictures(tmp_path: Path) -> None:
    trainer(tmp_path).run()
    for name in ("curves.png", "validation.png"):
        with Image.open(tmp_path / name) as picture:
            assert np.ptp(np.asarray(picture)) > 100


def test_a_student_learns_from_its_teacher(tmp_path: Path) -> None:
    trainer(tmp_path / "teacher", steps=2).run()
    weights = tmp_path / "teacher" / "final.pt"
    taught = networks.load(weights)
    student = trainer(
        tmp_path / "student",
        teacher=str(weights),
        teacher_share=1.0,
        steps=60,
        lr=4e-3,
        ema_decay=0,
        seed=3,
    )
    frames = torch.from_numpy(SpotsAndBlobs().validation(4)[0])
    before = torch.mean((student.average(frames) - taught(frames)) ** 2).item()
    after = torch.mean((student.run()(frames) - taught(frames)) ** 2).item()
    assert after < 0.2 * before, "with a share of 1 the teacher's output is all there is to learn"
    assert "teacher" in (tmp_path / "student" / "log.csv").read_text().splitlines()[0]


@pytest.mark.slow
def test_a_killed_student_of_several_views_equals_one_that_was_not(tmp_path: Path) -> None:
    trainer(tmp_path / "teacher", steps=1).run()
    settings = {
        "teacher": str(tmp_path / "teacher" / "final.pt"),
        "teacher_views": 3,
        "log_every": 3,
        "validate_every": 6,
    }
    resumed_equals_whole(lambda run: trainer(tmp_path / run, **settings), tmp_path, killed_at=9)


def test_a_teacher_of_another_shape_is_refused(tmp_path: Path) -> None:
    networks.save(
        tmp_path / "other.pt",
        networks.build("imcsr", **{**TINY, "channels": 3}),
        "imcsr",
        {**TINY, "channels": 3},
    )
    with pytest.raises(ValueError, match="channels 3, this network 2"):
        trainer(tmp_path, teacher=str(tmp_path / "other.pt"))


def test_a_network_begins_with_what_fits_of_another(tmp_path: Path) -> None:
    trainer(tmp_path / "first", steps=4).run()
    known = networks.load(tmp_path / "first" / "best.pt").state_dict()
    deeper = {**TINY, "blocks": TINY["blocks"] + 1}
    wider = trainer(tmp_path / "second", start=str(tmp_path / "first"), parameters=deeper)
    begun = wider.network.state_dict()
    same = {name for name in begun if name in known and begun[name].shape == known[name].shape}
    assert 0 < len(same) < len(begun), "there is another block"
    assert all(torch.equal(begun[name], known[name]) for name in same)
    assert torch.equal(wider.average.state_dict()[min(same)], known[min(same)])
    wider.run(minutes=1e-6)
    stored = json.loads((tmp_path / "second" / "start.json").read_text())
    assert (stored["name"], stored["tensors"], stored["of"]) == ("run first", len(same), len(begun))


def test_patches_are_counted_over_all_runs(tmp_path: Path) -> None:
    reports: list[Progress] = []
    trainer(tmp_path / "first", steps=4).run(reports.append)
    assert reports[-1].patches == 4 * 4
    trainer(tmp_path / "second", steps=3, start=str(tmp_path / "first" / "final.pt")).run(
        reports.append
    )
    assert reports[-1].patches == 4 * 4 + 3 * 4
    assert json.loads((tmp_path / "second" / "start.json").read_text())["patches"] == 4 * 4
    with (tmp_path / "second" / "log.csv").open(newline="") as file:
        assert [row["patches"] for row in csv.DictReader(file)] == ["16", "20", "24", "28"]


def test_what_a_run_begins_with_stays_the_best_until_something_is_better(tmp_path: Path) -> None:
    trainer(tmp_path / "first", steps=30).run()
    reports: list[Progress] = []
    spoiled = trainer(
        tmp_path / "second", steps=2, lr=1.0, warmup_steps=0, start=str(tmp_path / "first")
    )
    spoiled.run(reports.append)
    assert reports[0].step == 0
    assert reports[0].validation["pcc"] > reports[-1].validation["pcc"]
    before, best, last = (
        networks.load(tmp_path / path).state_dict()
        for path in ("first/best.pt", "second/best.pt", "second/final.pt")
    )
    assert all(torch.equal(best[name], before[name]) for name in before)
    assert not all(torch.equal(last[name], before[name]) for name in before)


def test_what_a_run_begins_with_is_judged_once(tmp_path: Path) -> None:
    trainer(tmp_path / "first", steps=2).run()
    out, reports = tmp_path / "second", []
    for _ in range(2):  # slices that end before the first step
        trainer(out, steps=2, start=str(tmp_path / "first")).run(reports.append, minutes=1e-9)
    assert [report.step for report in reports] == [0]
    (out / "checkpoint.pt").unlink()  # it was killed before there was one
    trainer(out, steps=2, start=str(tmp_path / "first")).run()
    with (out / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert [bool(rows[0][name]) for name in ("val_pcc", "lr", "patches_per_s")] == [1, 0, 0]


def test_a_constant_rate_stays_when_the_budget_grows(tmp_path: Path) -> None:
    rates: list[float] = []
    trainer(tmp_path, schedule="constant", steps=8, warmup_steps=4).run(
        lambda progress: rates.append(progress.lr)
    )
    trainer(tmp_path, schedule="constant", steps=12, warmup_steps=4).run(
        lambda progress: rates.append(progress.lr)
    )
    lr = config().lr
    assert rates == pytest.approx([lr / 4, lr / 2, 3 * lr / 4, *[lr] * 9])


def test_a_deeper_network_begins_as_the_shallower_one(tmp_path: Path) -> None:
    trainer(tmp_path / "first", steps=4).run()
    shallow = networks.load(tmp_path / "first" / "best.pt")
    deep = trainer(
        tmp_path / "second", start=str(tmp_path / "first"), parameters={**TINY, "blocks": 3}
    ).average
    frames = torch.from_numpy(SpotsAndBlobs().validation(2)[0])
    with torch.inference_mode():
        torch.testing.assert_close(deep(frames), shallow(frames))


def test_weights_of_another_kind_are_no_beginning(tmp_path: Path) -> None:
    networks.save(
        tmp_path / "other.pt", networks.build("unet", frames=1, width=4, depth=1), "unet", {}
    )
    with pytest.raises(ValueError, match="begin with a network of its kind"):
        trainer(tmp_path, start=str(tmp_path / "other.pt"))


def test_another_config_does_not_resume_here(tmp_path: Path) -> None:
    trainer(tmp_path).run()
    with pytest.raises(ValueError, match="another config"):
        trainer(tmp_path, lr=1e-4).run()


@pytest.mark.parametrize(("name", "chosen"), [("summation_with", "input"), ("correlation", 0.01)])
def test_a_checkpoint_of_before_there_was_a_choice_still_resumes(name: str, chosen: object) -> None:
    assert name not in config().identity()
    assert name in config(loss={name: chosen}).identity()


def test_the_papers_own_settings_train(tmp_path: Path) -> None:
    """The sum compared with the input, no average, no clipping."""
    loss = {"summation_with": "input", "ssim_constants": (0.01**2, 0.03**2)}
    run = trainer(tmp_path, steps=3, ema_decay=0, clip_norm=None, loss=loss)
    run.run()
    last, average = run.network.state_dict(), run.average.state_dict()
    assert all(torch.equal(average[name], last[name]) for name in last)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    trainer(tmp_path, steps=2).run()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"checkpoint.pt is damaged"):
        trainer(tmp_path, steps=4).run()


def test_a_finished_run_does_nothing_and_a_longer_one_goes_on(tmp_path: Path) -> None:
    trainer(tmp_path).run()
    reports: list[Progress] = []
    trainer(tmp_path).run(reports.append)
    assert not reports
    trainer(tmp_path, steps=15).run(reports.append)
    assert [report.step for report in reports] == [13, 14, 15]


def test_the_best_and_the_last_weights_are_networks(tmp_path: Path) -> None:
    average = trainer(tmp_path).run()
    final = networks.load(tmp_path / "final.pt")
    frames = torch.from_numpy(SpotsAndBlobs().validation(1)[0])
    torch.testing.assert_close(final(frames), average(frames))
    assert networks.load(tmp_path / "best.pt").head_kind == "partition"


class Constant(nn.Module):
    """What a sigmoid head collapses to."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(2, 1, 1))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.level).expand(len(frames), 2, *frames.shape[2:])


class Copied(Constant):
    """What a partition head collapses to."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return super().forward(frames) * frames


class Unrelated(Constant):
    """What is left of a partition head that gives all light to "none"."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return super().forward(frames) * 1e-2 * torch.sin(torch.arange(frames.shape[-1]) * 2.5)


class Diverging(Constant):
    """A network whose weights have become infinite."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return super().forward(frames) * float("nan")


COLLAPSED = {"architecture": "collapsed", "parameters": {}, "collapse_check_from": 3}


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Constant, "is constant"),
        (Copied, "input times a constant"),
        (Unrelated, "less like the structures"),
        (Diverging, "became nan"),
    ],
)
def test_collapse_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: type[nn.Module], message: str
) -> None:
    monkeypatch.setitem(networks.NETWORKS, "collapsed", network)
    with pytest.raises(TrainingCollapsedError, match=message):
        trainer(tmp_path, **COLLAPSED).run()


def test_a_collapsed_run_may_start_anew_at_half_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(networks.NETWORKS, "collapsed", Copied)
    reports: list[Progress] = []
    with pytest.raises(TrainingCollapsedError):
        trainer(tmp_path, restarts=1, **COLLAPSED).run(reports.append)
    assert [row[:2] for row in losses(tmp_path)] == [(a, s) for a in "01" for s in "123"]
    assert reports[3].lr == pytest.approx(reports[0].lr / 2)


def test_a_source_that_fails_ends_the_run_with_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk is gone"):
        Trainer(config(), DrawnTwice(), SpotsAndBlobs(), tmp_path).run()


def test_minutes_end_a_run(tmp_path: Path) -> None:
    reports: list[Progress] = []
    trainer(tmp_path, steps=None, minutes=0.01).run(reports.append)
    assert 0.01 <= reports[-1].minutes < 0.5
    assert reports[-1].validation


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(ValidationError, match="steps, minutes"):
        TrainConfig()


def test_augmentation_turns_frames_and_targets_alike() -> None:
    rng = np.random.default_rng(3)
    frames = rng.random((16, 3, 8, 8)).astype(np.float32)
    targets = frames[:, 1:2] * np.float32([1, 2]).reshape(1, 2, 1, 1)
    turned_frames, turned_targets = augment(rng, frames, targets)
    np.testing.assert_array_equal(turned_frames[:, 1], turned_targets[:, 0])
    np.testing.assert_allclose(turned_frames.sum((2, 3)), frames.sum((2, 3)), rtol=1e-5)
    assert len({tuple(np.argwhere(f[0] == f[0].max())[0]) for f in turned_frames}) > 1
    assert any(not np.array_equal(a, b) for a, b in zip(frames, turned_frames, strict=True))


def test_a_structure_that_no_validation_pair_has_counts_for_nothing() -> None:
    targets = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    targets[:, 1] = 0
    scores = validation_scores(targets + np.float32(0.1), targets)
    assert "pcc_1" not in scores
    assert scores["pcc"] == pytest.approx(1)
    assert validation_scores(targets[:, 1:2] + 1, targets[:, 1:2])["pcc"] == 0
