"""A distilled set as others take it: a data set of PyTorch and of Hugging Face, a repository of the Hub, and a page of a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils.data import Dataset

from d3hr.data.codec import read_square, to_unit_range
from d3hr.data.showing import SHOWN_CLASSES, SHOWN_IMAGES, notebook_page
from d3hr.errors import DistilledSetError, OutputError
from d3hr.fileio.checksums import SUMS, verify
from d3hr.sets.image_set import require_images
from d3hr.sets.manifest import Manifest
from d3hr.sets.packing import packed_in_words, unpack

UPLOADED = ("README.md", SUMS, "contact-sheet.png", "manifest.json", "run.json", "statistics.safetensors", "train/*/*.png")
"""What a finished set consists of."""


@dataclass(frozen=True, repr=False)
class SharedSet(Dataset[tuple[Tensor, int]]):
    """The pictures of a distilled set, read one by one when they are needed, class by class.

    An index gives ``(image [3, H, W] in [-1, 1], label)`` and a slice ``(images [n, 3, H, W], labels [n])``. Of a packed set these are the
    single pictures in its stored images, tile by tile, as students see them.
    """

    path: Path
    manifest: Manifest

    def __len__(self) -> int:
        return len(self.manifest.classes) * self._of_each

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return map(self._picture, range(len(self)))

    @overload
    def __getitem__(self, position: int) -> tuple[Tensor, int]: ...

    @overload
    def __getitem__(self, position: slice) -> tuple[Tensor, Tensor]: ...

    def __getitem__(self, position: int | slice) -> tuple[Tensor, Tensor | int]:
        """Return the picture and the label at a position, or those of a slice.

        Raises:
            IndexError: there are not that many.
            DistilledSetError: the image is damaged.
        """
        if not isinstance(position, slice):
            return self._picture(range(len(self))[position])
        pictures = [self._picture(each) for each in range(len(self))[position]]
        side = self.manifest.image_size // self.manifest.pack
        images = torch.stack([image for image, _ in pictures]) if pictures else torch.empty(0, 3, side, side)
        return images, torch.tensor([label for _, label in pictures], dtype=torch.int64)

    def to_datasets(self) -> Any:
        """Return the set as a ``datasets.Dataset`` with the columns ``image`` and ``label``, whose labels have the names of the classes.

        Images are decoded from the files when they are needed; of a packed set they are the stored images.

        Raises:
            DistilledSetError: only statistics are kept.
        """
        import datasets

        require_images(self)  # type: ignore[arg-type]  # each is a DistilledSet, which has all that an ImageSet has
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(self.manifest.class_names))})
        files = [(str(file.resolve()), entry.label) for entry in self.manifest.classes for file in entry.files(self.path)]
        columns = {"image": [file for file, _ in files], "label": [label for _, label in files]}
        return datasets.Dataset.from_dict(columns, features=features, split="train")

    def push_to_hub(self, repo: str, *, private: bool = False) -> str:
        """Upload the set to the Hugging Face Hub, in one commit, and return its address there.

        The page of the repository is the set's ``README.md``: what it is, real images in it, and whose licences apply. Whoever can see the
        repository sees the images, and the manifest with the names of their files.

        Args:
            repo: ``owner/name`` of a data-set repository, which is made if there is none; an earlier set in it is replaced.
            private: whether only you, or your organisation, can see it.

        Raises:
            OutputError: the Hub cannot be reached or refuses, or the repository holds something else, or is public and should not be.
            DamagedFile: a file is not what was written.
        """
        from huggingface_hub import HfApi

        verify(self.path)
        api = HfApi()
        try:
            url = api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
            info = api.dataset_info(url.repo_id)
        except Exception as error:  # the client raises from several unrelated trees
            raise _refused(repo, error) from error
        files = {file.rfilename for file in info.siblings or ()} - {".gitattributes", "README.md"}
        if files and not {"manifest.json", SUMS} <= files:
            found = f"{len(files)} file(s) of something else, such as {min(files)}"
            raise OutputError(f"{repo} is no distilled set.", found=found, hint="name a new repository.")
        if private and not info.private:
            raise OutputError(f"{repo} is public.", found="an existing repository", hint="make it private on the Hub, or name a new one.")
        try:
            api.upload_folder(
                repo_id=url.repo_id,
                repo_type="dataset",
                folder_path=self.path,
                allow_patterns=list(UPLOADED),
                delete_patterns=list(UPLOADED),
                commit_message=f"Distilled set: {self.manifest.ipc} images per class, method {self.manifest.method}",
            )
        except Exception as error:  # likewise
            raise _refused(repo, error) from error
        return str(url)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: counts, method, notice of real images, and some pictures."""
        manifest = self.manifest
        packed = f", {packed_in_words(manifest.pack)}" if manifest.pack > 1 else ""
        each = f"{manifest.ipc} image(s)" if manifest.ipc else "statistics alone"
        lines = [f"{each} of each of {len(manifest.classes)} classes, {manifest.image_size} px, method {manifest.method}{packed}"]
        lines += [f"It {manifest.about_real_images}."] if manifest.about_real_images else []
        shown = {entry.name: entry.files(self.path)[:SHOWN_IMAGES] for entry in manifest.classes[:SHOWN_CLASSES]}
        rows = {name: torch.stack([self._pixels(file) for file in files]) for name, files in shown.items() if files}
        return notebook_page(f"Distilled set {self.path}", lines, rows, classes=len(manifest.classes))

    @property
    def _of_each(self) -> int:
        """Pictures of each class."""
        return self.manifest.ipc * self.manifest.pack**2

    def _picture(self, position: int) -> tuple[Tensor, int]:
        label, place = divmod(position, self._of_each)
        stored, tile = divmod(place, self.manifest.pack**2)
        pixels = self._pixels(self.manifest.classes[label].file(self.path, stored))
        return to_unit_range(unpack(pixels.unsqueeze(0), self.manifest.pack)[tile]), label

    def _pixels(self, file: Path) -> Tensor:
        """Return the pixels uint8 [3, H, W] of a stored image."""
        try:
            return read_square(file, self.manifest.image_size)
        except (ValueError, OSError) as error:
            raise DistilledSetError(f"{file} is damaged.", found=str(error), hint="make the set again.") from error


def _refused(repo: str, error: Exception) -> OutputError:
    return OutputError(
        f"The set cannot be uploaded to {repo}.",
        found=f"{type(error).__name__}: {error}",
        hint="log in with 'hf auth login', with a token that may write, and check the name and the network.",
    )
