"""Reading what a training learns from: sources and galleries, and the labels of their images."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from hashsearch.errors import TrainingError
from hashsearch.evaluation.tasks import LabelledImages, images_of_gallery
from hashsearch.gallery import CATALOG_FILE
from hashsearch.sources import DataFolders, open_source
from hashsearch.sources.folder import ImageFile
from hashsearch.sources.kinds import how_labels_are_given
from hashsearch.sources.loading import load_labelled_images
from training.data import Examples
from training.labels import ClassLabels


def read_examples(data: Sequence[str], unlabelled: Sequence[str], folders: DataFolders) -> Examples:
    """Read the images of all sources, those of `unlabelled` without their labels.

    A source, or a gallery that keeps pixels, is one label set, by the first of its names; the
    images of one that is named several times come as often. Raises what opening a source or
    gallery raises, EvaluationError for a gallery without pixels, ArtifactMismatch for one of
    earlier image rules, and TrainingError if a source is named in both sequences.
    """
    specs = (*data, *unlabelled)
    read = {spec: _read(spec, folders) for spec in dict.fromkeys(specs)}
    names: dict[Path, str] = {}
    for spec, (place, _) in read.items():
        names.setdefault(place, spec)
    sets = [(names[read[spec][0]], read[spec][1].labels) for spec in data]
    for spec in unlabelled:
        place, images = read[spec]
        if place in {read[other][0] for other in data}:
            raise TrainingError(f"{spec} is named by --data and by --unlabelled; which is it?")
        sets.append((names[place], np.full(len(images), "")))
    pixels = np.concatenate([read[spec][1].images for spec in specs])
    return Examples(pixels, ClassLabels.of_sets(sets))


def require_labels(examples: Examples, data: Sequence[str]) -> None:
    """Raise TrainingError, with how labels are given, if no image has one. data: the sources."""
    assert examples.labels is not None
    if examples.labels.known.any():
        return
    if not len(examples):
        raise TrainingError(f"no image came from {', '.join(data)}; images with labels are wanted")
    advice = dict.fromkeys(
        "hashsearch index with --labels gives labels to images that a gallery has"
        if _is_gallery(spec)
        else how_labels_are_given(Path(spec))
        for spec in data
    )
    raise TrainingError(f"no image of {', '.join(data)} has a label to learn; {'; '.join(advice)}")


def _read(spec: str, folders: DataFolders) -> tuple[Path, LabelledImages]:
    """Where a source lies, its images and their labels; of a gallery, those that it keeps."""
    if not _is_gallery(spec):
        source = open_source(spec, folders)
        place = source.path if isinstance(source, ImageFile) else source.root
        return place, LabelledImages(*load_labelled_images(source))
    from hashsearch.gallery.gallery_folder import GalleryFolder  # machines that train may lack it

    with closing(GalleryFolder(Path(spec))) as gallery:
        gallery.require_todays_rules()
        return Path(spec).resolve(), images_of_gallery(gallery)


def _is_gallery(spec: str) -> bool:
    """The same as GalleryFolder.exists, without the packages that only galleries need."""
    return spec != "" and (Path(spec) / CATALOG_FILE).is_file()
