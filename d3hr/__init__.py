"""d3hr: distil an image data set into a few representative images per class, and tell the truth about the result."""

from d3hr.baselines.generation import prior_only
from d3hr.baselines.selection import random_real
from d3hr.data import ImageData, load_images
from d3hr.diagnostics.diagnosis import Diagnosis, diagnose
from d3hr.distillation.grouping import group_score, select_groups
from d3hr.distillation.inversion import denoise, invert
from d3hr.distillation.matching import ClassGaussian
from d3hr.distillation.pipeline import distill, expand
from d3hr.errors import D3hrError
from d3hr.evaluation.results import Evaluation
from d3hr.evaluation.scores import evaluate
from d3hr.planning.plan import plan
from d3hr.prior.model import Prior
from d3hr.prior.training import fit_prior
from d3hr.storage import DistilledSet

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
