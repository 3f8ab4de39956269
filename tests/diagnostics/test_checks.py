"""Verdicts on made-up figures, either side of every threshold."""

import pytest

from d3hr.diagnostics.checks import cost, diversity_loss, doubtful_labels, drift, transfer, weak_prior
from d3hr.diagnostics.distances import Distance
from d3hr.diagnostics.neighbours import LabelAgreement, Support
from d3hr.diagnostics.normality import LevelShares, Normality
from d3hr.distillation.presets import distill_settings
from d3hr.evaluation.results import ResultRow


def _row(method: str, student: str, accuracy: float, std: float = 0.01, protocol: str = "hard", ipc: int = 10) -> ResultRow:
    return ResultRow(
        method=method, ipc=ipc, student=student, protocol=protocol, labels="hard", accuracy_mean=accuracy, accuracy_std=std, seeds=3
    )


RANDOM = [_row("random_real", "convnet3", 0.5), _row("random_real", "resnet18", 0.45)]


@pytest.mark.parametrize(("accuracy", "status"), [(0.5, "ok"), (0.44, "warning"), (0.3, "failure")])
def test_transfer_beyond_that_of_random_real_images(accuracy: float, status: str) -> None:
    """The best student has 0.6; on random real images the other loses 0.05. Losing 0.1, 0.16 and 0.3 is 0.05 / 0.6 = 8 %,
    0.11 / 0.6 = 18 % and 0.25 / 0.6 = 42 % more, against limits of 10 % and 25 %; without the reference it would be 17, 27 and 50 %."""
    rows = [_row("d3hr", "convnet3", 0.6), _row("d3hr", "resnet18", accuracy), *RANDOM]
    assert transfer(rows, "d3hr", 10).status == status


def test_transfer_within_the_spread_of_the_seeds_is_no_finding() -> None:
    """0.08 more, with two standard deviations of 0.1: their root sum of squares is 0.14."""
    rows = [_row("d3hr", "convnet3", 0.6, 0.1), _row("d3hr", "resnet18", 0.47, 0.1), *RANDOM]
    assert transfer(rows, "d3hr", 10).status == "ok"


def test_transfer_is_unknown_without_a_second_student_or_a_reference() -> None:
    """Rows of another protocol or IPC, or of other methods, are no second student; without random real rows nothing can be said."""
    first = _row("d3hr", "convnet3", 0.6)
    others = [_row("d3hr", "resnet18", 0.1, protocol="quick"), _row("d3hr", "resnet18", 0.1, ipc=50), *RANDOM]
    alone = transfer([first, *others], "d3hr", 10)
    assert alone.status == "unknown" and "--student" in alone.text
    unreferenced = transfer([first, _row("d3hr", "resnet18", 0.1)], "d3hr", 10)
    assert unreferenced.status == "unknown" and "random real" in unreferenced.text


@pytest.mark.parametrize(
    ("distilled", "coverage", "status"),
    [(0.9, 0.5, "ok"), (0.7, 0.5, "warning"), (0.4, 0.5, "failure"), (0.9, 0.2, "warning"), (0.9, 0.1, "failure"), (None, 0.5, "ok")],
)
def test_diversity(distilled: float | None, coverage: float, status: str) -> None:
    """Real diversity 1, reference coverage 0.5: limits are 0.8 and 0.5 of the one, 0.5 and 0.25 of the other; the worse decides."""
    assert diversity_loss(distilled, 1.0, Support(coverage=coverage), Support(coverage=0.5)).status == status


def test_diversity_tells_images_alike_from_images_elsewhere() -> None:
    """Noise is diverse and near nothing; one image repeated is alike and near what it shows."""
    elsewhere = diversity_loss(1.1, 1.0, Support(coverage=0.0), Support(coverage=0.5))
    assert "differ from one another" in elsewhere.text and "if any" in elsewhere.text
    assert diversity_loss(0.0, 1.0, Support(coverage=0.4), Support(coverage=0.5)).text == "The images of a class are nearly alike."


def test_diversity_without_evidence_is_unknown() -> None:
    assert diversity_loss(None, 1.0, Support(coverage=0.5), None).status == "unknown"


def _distances(ratio: float, std: float = 0.1) -> dict[str, Distance]:
    found = {name: Distance(ratio, 1.0, std) for name in ("sliced_wasserstein", "sinkhorn", "frechet")}
    return {"mmd": Distance(0.1, 0.0, 0.01), **found}


def _normality(share: float) -> Normality:
    return Normality("", (LevelShares(31, 620, share, 1, 1, 1, 1, 1, 1),), {})


def test_drift() -> None:
    """Ratios 1.1, 2 and 4 against limits 1.5 and 3; 2 with a standard deviation of 0.5 is within three of them."""
    assert [drift(_distances(ratio), None, None).status for ratio in (1.1, 2, 4)] == ["ok", "warning", "failure"]
    assert drift(_distances(2, std=0.5), None, None).status == "ok"
    assert drift({"mmd": Distance(None)}, None, None).status == "unknown"


def test_latents_that_are_not_gaussian_warn() -> None:
    """Only at the level of a set that was drawn from Gaussians."""
    settings = distill_settings("paper")
    assert drift(_distances(1), _normality(0.4), settings).status == "warning"
    assert drift(_distances(1), _normality(0.9), settings).status == "ok"
    assert drift(_distances(1), _normality(0.4), None).status == "ok"


def test_cost() -> None:
    """Level 31 with guidance is 62 calls an image. 100,000 images at 0.1, 1 and 10 seconds are 2.8, 28 and 278 hours."""
    settings = distill_settings("paper")
    found = [cost("d3hr", settings, 100_000, seconds) for seconds in (0.1, 1, 10)]
    assert [verdict.status for verdict in found] == ["ok", "warning", "failure"]
    assert "62 network calls an image, 6,200,000" in found[0].evidence
    assert cost("d3hr", settings, 100_000, None).status == "unknown"
    assert cost("folder", None, 100_000, 0.1).status == "unknown"
    assert cost("random_real", None, 100_000, None).status == "ok"


@pytest.mark.parametrize(
    ("agreement", "status"),
    [
        (LabelAgreement(0.7, 0.04, 0.7), "ok"),
        (LabelAgreement(0.7, 0.1, 0.7), "warning"),
        (LabelAgreement(0.2, 0.4, 0.35), "failure"),
        (LabelAgreement(0.2, 0.4, 0.25), "unknown"),
        (LabelAgreement(0.0, None, 0.5), "unknown"),
        (LabelAgreement(), "unknown"),
    ],
)
def test_doubtful_labels(agreement: LabelAgreement, status: str) -> None:
    """Limits are 5 and 15 % of the images that lie clearly within a class, in a space that tells classes apart."""
    assert doubtful_labels(agreement, "latents").status == status


@pytest.mark.parametrize(("psnr_db", "status"), [(34.6, "ok"), (24.0, "warning"), (17.4, "failure")])
def test_weak_prior(psnr_db: float, status: str) -> None:
    found = weak_prior(psnr_db)
    assert (found.signature, found.status) == ("weak prior", status)
    assert f"{psnr_db} dB" in found.evidence
