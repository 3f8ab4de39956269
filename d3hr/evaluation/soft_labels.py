"""What a teacher says of the images of a set, asked once and kept.

Legend: N images, C classes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from d3hr.evaluation.scoring import Labelled
from d3hr.evaluation.teachers import BATCH, Teacher
from d3hr.files import kept, read_tensors, write_tensors


def soft_labels(train: Labelled, teacher: Teacher, file: Path | None = None) -> Tensor:
    """Return the teacher's logits float16 [N, C] of a set's images as they are, columns in the set's order of classes.

    Args:
        train: the images.
        teacher: the teacher, whose classes are the set's.
        file: where to keep them, as safetensors of one tensor ``logits``; what lies there is used again, unless it is damaged.
    """
    found = None if file is None else kept(file, read_tensors)
    if found is not None:
        return found["logits"]
    positions = torch.arange(len(train.labels)).split(BATCH)
    logits = torch.cat([teacher.logits(train.read(part)) for part in positions])
    chosen = logits[:, teacher.columns(train.class_names)].half()
    if file is not None:
        write_tensors(file, {"logits": chosen})
    return chosen
