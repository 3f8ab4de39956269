"""Vision transformers.

Neither has dropout; Swin-T drops attention branches of an image in training, up to one in ten (``drop_path_rate`` 0.1, the library's
default, growing with depth). Initialisation and norms are those of the library transformers.

Legend: N images, H = W image side.
"""

import math

from torch import Tensor
from torch.nn import functional as F

from d3hr.evaluation.networks.base import SMALL_IMAGE, PooledStudent, Student, require_side

_SMALLEST_SWIN = 9


class ViTTiny(Student):
    """ViT-Ti: width 192, 12 layers, 3 heads (the vision transformer of arXiv 2010.11929 in the size of arXiv 2012.12877).

    Patches are an eighth of the side up to 64 pixels, which makes at most 8 x 8 of them, and 16 pixels above. A side that patches do not
    divide is padded with zeros at the right and the bottom. It is built for any side, and refuses images of another one.
    """

    def __init__(self, num_classes: int, image_size: int) -> None:
        super().__init__()
        from transformers import ViTConfig, ViTForImageClassification

        patch = math.ceil(image_size / 8) if image_size <= SMALL_IMAGE else 16
        self._missing = -image_size % patch
        config = ViTConfig(
            hidden_size=192,
            num_hidden_layers=12,
            num_attention_heads=3,
            intermediate_size=4 * 192,
            image_size=image_size + self._missing,
            patch_size=patch,
            num_labels=num_classes,
        )
        model = ViTForImageClassification(config)
        self.network, self.classifier = model.vit, model.classifier

    def embed(self, images: Tensor) -> Tensor:
        """Return the class token after the last layer."""
        tokens: Tensor = self.network(F.pad(images, (0, self._missing, 0, self._missing))).last_hidden_state
        return tokens[:, 0]


class SwinTiny(PooledStudent):
    """Swin-T: width 96, 2, 2, 6 and 2 layers of 3, 6, 12 and 24 heads (arXiv 2103.14030).

    Up to 64 pixels patches are a sixteenth of the side and windows 4 x 4 patches. Above, patches are of 4 pixels and windows 7 x 7, or
    8 x 8 where the side is a multiple of 128, which they divide. A stage whose map is smaller than a window has one window of the map's
    size, as in the paper's network. The library pads maps that patches or windows do not divide. The side is at least 9 pixels: a smaller
    one leaves a single token in the last stage, whose attention could learn nothing.
    """

    def __init__(self, num_classes: int, image_size: int) -> None:
        super().__init__()
        from transformers import SwinConfig, SwinForImageClassification, SwinModel

        require_side(image_size, _SMALLEST_SWIN, "swin-t")
        if image_size <= SMALL_IMAGE:
            patch, window = math.ceil(image_size / 16), 4
        else:
            patch, window = 4, 7 if image_size % 128 else 8

        def config(window_size: int) -> SwinConfig:
            return SwinConfig(
                embed_dim=96,
                depths=[2, 2, 6, 2],
                num_heads=[3, 6, 12, 24],
                image_size=image_size,
                patch_size=patch,
                window_size=window_size,
                num_labels=num_classes,
            )

        model = SwinForImageClassification(config(window))
        self.network, self.classifier = model.swin, model.classifier
        side = math.ceil(image_size / patch)
        for stage in range(4):
            if side < window:
                # The library has one window size for all stages, and fails where a map is smaller.
                self.network.encoder.layers[stage] = SwinModel(config(side)).encoder.layers[stage]
            side = math.ceil(side / 2)
