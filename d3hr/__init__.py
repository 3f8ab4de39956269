"""d3hr: distil an image data set into a few representative images per class, and tell the truth about the result."""

from d3hr.data.dataset import ImageData, load_images
from d3hr.diagnostics.diagnose import diagnose
from d3hr.diagnostics.result import Diagnosis
from d3hr.distillation.ddim import denoise, invert
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.grouping import group_score, select_groups
from d3hr.errors import D3hrError
from d3hr.evaluation.evaluate import evaluate
from d3hr.evaluation.results import Evaluation
from d3hr.methods.prior_only import prior_only
from d3hr.methods.selection import random_real
from d3hr.pipeline import distill, expand
from d3hr.planning.plan import plan
from d3hr.prior.fit import fit_prior
from d3hr.prior.model import Prior
from d3hr.sets.distilled_set import DistilledSet

__all__ = [
    "ClassGaussian",
    "D3hrError",
    "Diagnosis",
    "DistilledSet",
    "Evaluation",
    "ImageData",
    "Prior",
    "denoise",
    "diagnose",
    "distill",
    "evaluate",
    "expand",
    "fit_prior",
    "group_score",
    "invert",
    "load_images",
    "plan",
    "prior_only",
    "random_real",
    "select_groups",
]
