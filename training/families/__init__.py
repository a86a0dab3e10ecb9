"""Model families: one file each, with its presets and its training.

`PRESETS` is the table of all presets that `train` accepts.
"""

from collections.abc import Mapping
from typing import Any

from training.families import convolutional, dense, labelled, linear, teacher, transform
from training.families.base import Preset

PRESETS: Mapping[str, Preset[Any]] = {
    **convolutional.PRESETS,
    **labelled.PRESETS,
    **teacher.PRESETS,
    **dense.PRESETS,
    **linear.PRESETS,
    **transform.PRESETS,
}
