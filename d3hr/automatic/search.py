"""In which order candidates are tried, and when it is enough: rounds of one set each, as long as the budget allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from d3hr.automatic.candidates import BY_TEACHER, CHOSEN, DRAWN, PUBLISHED, RANDOM, Candidate
from d3hr.automatic.students import StudentPlan
from d3hr.automatic.trials import Trials
from d3hr.data.dataset import ImageData
from d3hr.diagnostics.gate import prior_gate
from d3hr.evaluation.confidence import IMAGE_SIZE as CONFIDENCE_SIDE
from d3hr.evaluation.protocols import protocol_named
from d3hr.fileio.atomic import load_or_make
from d3hr.formatting import time_in_words
from d3hr.planning.plan import plan
from d3hr.prior.fit import fit_prior
from d3hr.prior.model import Prior

SETS = 3
"""Sets of each candidate, where there is time; two where there is not."""
MOST_SETS = 8
"""Sets of the leaders, as long as there is time. What they show does not decide when to stop: that would favour chance."""
LEADERS = 2
"""The best candidates, which get more sets than the others."""
CONFIDENCE_SHARE = 0.25
"""Share of the budget that networks may take that say how sure one is of each image."""
FIT_SECONDS, FIT_SHARE = 240.0, 0.4
"""A prior is fitted where so much time is left, in this share of it."""
SLACK = 1.2
"""By how much work may take longer than it did before."""


def search(trials: Trials, reserve: float) -> list[str]:
    """Try candidates, and return what was left out, and why, in a sentence each.

    Args:
        trials: where they are tried.
        reserve: seconds of the budget that are needed afterwards.
    """
    left_out: list[str] = []
    expected = trials.students.steps * trials.students.seconds_per_step
    trials.run(RANDOM, 0)
    each = max(trials.budget.spent_on(RANDOM.name), expected)
    field = _affordable(_field(trials, left_out), trials, reserve, each, left_out)
    sets = SETS if _fits(trials, reserve, each * (len(field) * SETS - 1)) else 2
    _rounds(trials, field, range(sets), reserve, each)
    _try_drawn(trials, range(sets), reserve, each, left_out)
    for place in range(sets, MOST_SETS):
        finalists = [RANDOM, *trials.leaders(LEADERS)]
        if _fits(trials, reserve, len(finalists) * each * SLACK):
            _rounds(trials, finalists, [place], reserve, each)
    return left_out


def _field(trials: Trials, left_out: list[str]) -> list[Candidate]:
    """Return the candidates that need no prior, random real images first."""
    chosen = [*CHOSEN[:2], *(BY_TEACHER if trials.inputs.teacher else ()), *CHOSEN[2:]]
    seconds = 0.0 if trials.inputs.teacher else confidence_seconds(trials.inputs.images, trials.students)
    if seconds > CONFIDENCE_SHARE * trials.budget.seconds:
        slow = [one for one in chosen if one.judges_confidence]
        chosen = [one for one in chosen if not one.judges_confidence]
        left_out.append(f"{_names(slow)}: networks that judge all images would take about {time_in_words(seconds)}.")
    return [RANDOM, *chosen]


def confidence_seconds(images: ImageData, students: StudentPlan) -> float:
    """Return the seconds that a cross-validation over all images takes, by the speed of the students."""
    protocol = protocol_named("confidence", ipc=images.ipc, classes=len(images.class_names))
    steps = math.prod(protocol.ticks(len(images) // 2))
    return SLACK * 2 * steps * students.seconds_at(min(images.image_size, CONFIDENCE_SIDE))


def _affordable(field: list[Candidate], trials: Trials, reserve: float, each: float, left_out: list[str]) -> list[Candidate]:
    """Return as many of the first candidates as there is time to try with all their sets; two at least."""
    extra = confidence_seconds(trials.inputs.images, trials.students) if any(one.judges_confidence for one in field) else 0.0
    students = 1 + (trials.budget.left - reserve - extra) / (each * SLACK)
    count = max(2, min(len(field), int(students / SETS)))
    if field[count:]:
        left_out.append(f"{_names(field[count:])}: no time left.")
    return field[:count]


def _rounds(trials: Trials, field: Sequence[Candidate], places: Sequence[int], reserve: float, each: float) -> None:
    """Try every candidate once at each place, unless time runs out; one other than random real images is tried in any case."""
    for place in places:
        for candidate in field:
            if len(trials.runs(candidate)) > place:
                continue
            if len(trials.tried) > 1 and not _fits(trials, reserve, each * SLACK):
                return
            trials.run(candidate, place)


def _fits(trials: Trials, reserve: float, seconds: float) -> bool:
    return seconds <= trials.budget.left - reserve


def _try_drawn(trials: Trials, places: Sequence[int], reserve: float, each: float, left_out: list[str]) -> None:
    """Try the candidates that need a prior, if one is given or can be fitted, is good enough, and there is time."""
    candidates, left = [*DRAWN], trials.budget.left - reserve
    if trials.inputs.prior is not None:
        candidates.append(PUBLISHED)
    elif left < max(FIT_SECONDS, len(places) * each / FIT_SHARE):
        left_out.append(f"{_names(candidates)}: no prior was given, and there was no time to fit one.")
        return
    else:
        prior = _fitted(trials, FIT_SHARE * left / 60, left_out, candidates)
        if prior is None:
            return
        trials.inputs = replace(trials.inputs, prior=prior)
    for candidate in candidates:
        seconds = len(places) * (_drawing_seconds(trials, candidate) + each)
        if _fits(trials, reserve, seconds):
            _rounds(trials, [candidate], places, reserve, each)
        else:
            left_out.append(f"{candidate.name}: it would take about {time_in_words(seconds)}.")


def _fitted(trials: Trials, minutes: float, left_out: list[str], candidates: Sequence[Candidate]) -> Prior | None:
    """Return a prior that is fitted in so many minutes, or by an earlier run; None where it is not good enough to draw from."""
    images, name = trials.inputs.images, "fitting a prior"
    with trials.budget.on(name, trials.bar) as progress:
        minutes = load_or_make(trials.folder / "fit.json", lambda: {"minutes": round(minutes, 1)})["minutes"]
        prior = fit_prior(images, trials.folder / "prior", preset="tiny", max_minutes=minutes, progress=progress)
        matches = prior.denoiser.match(images.class_names, of=images.source)
        verdict = prior_gate(prior, trials.held_out, conditioning=matches)
    if verdict.status == "failure":
        reason = verdict.text.partition(". ")[0]
        left_out.append(f"{_names(candidates)}, with a prior that was fitted in {minutes:.1f} minutes: {reason}.")
        return None
    return prior


def _drawing_seconds(trials: Trials, candidate: Candidate) -> float:
    """Return the seconds that a set takes to make with a prior, by a measurement."""
    assert trials.inputs.prior is not None
    options: dict[str, Any] = {
        name: value for name, value in candidate.options.items() if name not in ("candidates", "keep", "denoising_level")
    }
    preset = "mixture" if candidate.preset == "real" else candidate.preset
    found = plan(trials.inputs.images.counts, trials.inputs.prior, ipc=trials.ipc, preset=preset, evaluation_runs=0, **options)
    return found.distillation_seconds


def _names(candidates: Sequence[Candidate]) -> str:
    return ", ".join(candidate.name for candidate in candidates)
