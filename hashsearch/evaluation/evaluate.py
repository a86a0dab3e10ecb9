"""Measure several methods, or read back what was measured before."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hashsearch.durable import write_whole
from hashsearch.errors import EvaluationError
from hashsearch.evaluation.imported import sources_sha256
from hashsearch.evaluation.measure import Result, measure
from hashsearch.evaluation.measured import Examples, MeasuredMethod
from hashsearch.evaluation.tasks import Task
from hashsearch.wording import counted

USUAL_KS = (1, 10, 100, 1000)
# A cached result depends on everything that this imports.
_MEASURING = Path(__file__).with_name("measure.py")
_log = logging.getLogger(__name__)


def require_measurable(method: MeasuredMethod, task: Task) -> None:
    """Raise EvaluationError if the gallery is too small for a method to learn from."""
    if len(task.gallery) < method.least_images:
        raise EvaluationError(
            f"{method.name} learns from at least {method.least_images:,} images, one more than "
            f"it has bits; {task.name} has {len(task.gallery):,}"
        )


def numbers_retrieved(asked: Sequence[int] | None, task: Task) -> list[int]:
    """The numbers of images retrieved to measure at: those asked for, or the USUAL_KS that fit.

    Raises EvaluationError if the gallery has fewer images than were asked for.
    """
    n_gallery = len(task.gallery)
    if asked is None:
        return [k for k in USUAL_KS if k <= n_gallery]
    if max(asked) > n_gallery:
        raise EvaluationError(
            f"{task.name} has {counted(n_gallery, 'image')} to find, fewer than the {max(asked):,} "
            "asked for; -k takes smaller numbers"
        )
    return sorted(set(asked))


def evaluate(
    task: Task,
    methods: Sequence[MeasuredMethod],
    *,
    ks: list[int],
    seed: int,
    environment: Mapping[str, str],
    date: str,
    cache: Path,
) -> list[Result]:
    """A result for each method, from the cache where the same was measured before.

    methods: ones that `require_measurable` accepts. ks: as of `measure`. environment: what else
    the results depend on, such as the machine and versions of libraries. date: today's. cache:
    a folder, made if it is missing; where it cannot be written, results are not kept. A cached
    result is used if the method (a model by its fingerprint), the images, labels, ks, seed and
    environment, and the source files that measuring imports are all the same.
    """
    examples, sources = Examples(task.gallery.images, seed), sources_sha256(_MEASURING)
    results = []
    for method in methods:
        identity = {
            "method": [method.name, method.n_bits, method.image_bytes, *method.identity],
            "model": method.model and method.model.card.fingerprint,
            "images": task.digest,
            "numbers": [ks, seed],
            "environment": [sources, *sorted(environment.items())],
        }
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        path = cache / f"{key}.json"
        result = _read(path)
        if result is None:
            result = measure(method, examples, task, ks=ks, seed=seed, date=date)
            _keep(path, result)
        results.append(replace(result, title=method.title))  # a model may have had another name
    return results


def _read(path: Path) -> Result | None:
    """The result in a file; None if the file is missing or cannot be read as one."""
    try:
        return Result.from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _keep(path: Path, result: Result) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(result.to_dict()))
    except OSError as error:
        _log.warning("the result of %s was not kept: %s", result.method, error)
