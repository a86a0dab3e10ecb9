"""Everything HashSearch raises on purpose.

A message is one sentence that says what came and what was wanted; users see it
unchanged.
"""


class HashSearchError(Exception):
    """The root of all errors raised on purpose.

    parameter: name of the argument, parameter or field at fault, if it is known.
    request_id: of the HTTP request, as the service's log shows it; None if no service answered.
    """

    parameter: str | None = None
    request_id: str | None = None


class InvalidImage(HashSearchError):
    """Bytes of an accepted format that cannot be turned into a picture."""


class ImageTooLarge(InvalidImage):
    """A picture with more pixels, or a file with more bytes or work, than is decoded."""


class UnsupportedFormat(InvalidImage):
    """Bytes that are in none of the accepted image formats, or of a kind that is not read."""


class CodeShapeError(HashSearchError):
    """A code that has not the wanted width."""


class InvalidQuery(HashSearchError):
    """A query whose k, radius, method or id cannot be used."""

    def __init__(self, sentence: str, parameter: str | None = None):
        super().__init__(sentence)
        self.parameter = parameter


class NotInGallery(HashSearchError):
    """An image id that the gallery does not hold."""


class OriginalMissing(HashSearchError):
    """An image whose original file is not there any more, has changed, or never existed."""


class InvalidModel(HashSearchError):
    """A model folder that is missing, damaged or of an unknown format."""


class InvalidGallery(HashSearchError):
    """A gallery folder that is missing, damaged or of an unknown format."""


class GalleryBusy(HashSearchError):
    """Another job holds the gallery's lock."""


class GalleryReadOnly(HashSearchError):
    """A gallery on a disk, or in a folder, that cannot be written to."""


class NotWritable(HashSearchError):
    """A folder for results that cannot be made or written to."""


class TooManyFailures(HashSearchError):
    """More unreadable images than a job's limit."""


class ArtifactMismatch(HashSearchError):
    """Two artifacts that were not made for each other: a model and a gallery."""


class InvalidSource(HashSearchError):
    """A source of images that is missing, of no known kind, or empty."""


class WorkersFailed(HashSearchError):
    """Worker processes that cannot be started."""


class ClusterError(HashSearchError):
    """A cluster of machines that cannot be started, reached or used."""


class PartMissing(HashSearchError):
    """A search for which a part of the gallery's codes is on no machine at the moment."""


class TrainingError(HashSearchError):
    """A training that cannot start, or that failed."""


class EvaluationError(HashSearchError):
    """An evaluation that is not possible with the given data, methods and numbers."""


class ExportError(HashSearchError):
    """An export that is refused, or that a database refuses or fails to take."""


class ServiceError(HashSearchError):
    """A service that a client cannot reach, or that refuses or fails to answer.

    code: the problem's stable name. status: of HTTP. Each is None if it is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
    ):
        super().__init__(message)
        self.code, self.status, self.request_id = code, status, request_id


class MissingPackage(HashSearchError):
    """A missing package that one of the extras installs."""
