"""Reads the schedule of a prior from the configuration of a diffusers scheduler."""

from collections.abc import Mapping
from typing import Any

from d3hr.prior.schedules.flow_matching import FlowMatching
from d3hr.prior.schedules.schedule import Schedule, require_usable
from d3hr.prior.schedules.variance_exploding import VarianceExploding
from d3hr.prior.schedules.variance_preserving import VariancePreserving


def read_schedule(config: Mapping[str, Any]) -> Schedule:
    """Return the schedule of a diffusers ``scheduler_config.json``; how many steps its sampler takes does not matter.

    Raises:
        PriorError: it has a schedule of another kind, or a sampler that clips: inversion cannot undo it.
    """
    for name in ("clip_sample", "thresholding", "use_dynamic_shifting", "use_beta_sigmas", "use_exponential_sigmas"):
        require_usable(name, config.get(name) or False, (False,))
    kind = str(config.get("_class_name"))
    if kind.startswith("FlowMatch") or config.get("prediction_type") == "flow_prediction":
        return FlowMatching.from_config(config)
    return VarianceExploding.from_config(config) if kind.startswith("EDM") else VariancePreserving.from_config(config)
