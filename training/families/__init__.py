"""Model families: a file each, with its presets and how a model of it is trained.

`PRESETS` is the one table of what `train` can be asked for.
"""

from collections.abc import Mapping
from typing import Any

from training.families import convolutional, dense, linear, teacher, transform
from training.families.base import Preset

PRESETS: Mapping[str, Preset[Any]] = {
    **convolutional.PRESETS,
    **teacher.PRESETS,
    **dense.PRESETS,
    **linear.PRESETS,
    **transform.PRESETS,
}
