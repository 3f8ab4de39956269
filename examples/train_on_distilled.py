"""Train a network on a distilled set with plain PyTorch, and test it on real images: no part of d3hr is needed.

    python examples/train_on_distilled.py SET TEST

SET is a distilled set, with images in SET/train/<class>/; TEST is a folder with one folder of images per class. ``datasets`` numbers the
labels in the order of the folder names, so the labels of TEST are matched to those of SET by name. A class folder has the name of its
class, except that characters which might be misread are written %XX; SET/manifest.json lists both names.
"""

import sys
from urllib.parse import unquote

import numpy as np
import torch
from datasets import load_dataset
from torch import nn

torch.manual_seed(0)
folders = f"{sys.argv[1]}/train", sys.argv[2]
# Named like this, all files are one split, whatever their names and those of the classes look like.
distilled, test = (load_dataset("imagefolder", data_files={"train": f"{folder}/*/**"}, split="train") for folder in folders)
names, test_names = ([unquote(name) for name in data.features["label"].names] for data in (distilled, test))
size = distilled[0]["image"].size


def pixels(data):
    """Return the images as floats [N, 3, H, W] in [-1, 1]."""
    arrays = np.stack([np.asarray(image.convert("RGB").resize(size)) for image in data["image"]])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2) / 127.5 - 1


network = nn.Sequential(
    nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
    nn.Flatten(), nn.Linear(512, len(names)),
)  # fmt: skip
images, labels = pixels(distilled), torch.tensor(distilled["label"])
optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
for _ in range(60):
    for batch in torch.randperm(len(images)).split(64):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimiser.step()

network.eval()
with torch.no_grad():
    predicted = torch.cat([network(part).argmax(dim=1) for part in pixels(test).split(500)])
expected = torch.tensor([names.index(test_names[label]) for label in test["label"]])
print(f"test accuracy {(predicted == expected).float().mean():.3f}, {len(images)} distilled images of {', '.join(names)}")
