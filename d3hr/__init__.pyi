"""The public names of d3hr and where each is defined."""

from .automatic.entry import distill as distill
from .comparison.matrix import Matrix as Matrix
from .comparison.run import compare as compare
from .data.dataset import ImageData as ImageData
from .data.opening import load_images as load_images
from .diagnostics.diagnose import diagnose as diagnose
from .diagnostics.result import Diagnosis as Diagnosis
from .distillation.ddim import denoise as denoise
from .distillation.ddim import invert as invert
from .distillation.gaussian import ClassGaussian as ClassGaussian
from .distillation.grouping import group_score as group_score
from .distillation.grouping import select_groups as select_groups
from .errors import D3hrError as D3hrError
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.results import Evaluation as Evaluation
from .methods.job import MethodInputs as MethodInputs
from .methods.prior_only import prior_only as prior_only
from .methods.selection import random_real as random_real
from .pipeline import expand as expand
from .planning.plan import plan as plan
from .prior.fit import fit_prior as fit_prior
from .prior.model import Prior as Prior
from .prior.networks import on_device as on_device
from .report.report import write_report as write_report
from .sets.distilled_set import DistilledSet as DistilledSet
from .updating import update as update

__all__: list[str]
__version__: str
