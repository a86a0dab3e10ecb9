"""What the pages of reports share: their style, pictures and plots that stand in the page.

Plots need matplotlib, which is imported when one is drawn.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"  # a colour of plots that becomes the page's: dark on light, or light on dark
# An SVG file within a page follows the browser's scheme by itself.
_SCHEMES = (
    "<style>:root { color: #1c1d20 } "
    "@media (prefers-color-scheme: dark) { :root { color: #ececee } }</style>"
)


def style() -> str:
    """The style sheet of the pages."""
    return files("hashsearch").joinpath("report.css").read_text(encoding="utf-8")


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@contextmanager
def in_ink() -> Iterator[None]:
    """Draw matplotlib's lines and words in INK. Raises ImportError without matplotlib."""
    import matplotlib as mpl

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    colours: dict[Any, str] = {"axes.facecolor": "none", **dict.fromkeys(inked, INK)}
    with mpl.rc_context(colours):
        yield


def svg(figure: "Figure") -> str:
    """A figure drawn `in_ink` as a data URI; the same drawing has the same bytes."""
    import matplotlib as mpl

    drawn = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "report"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None}, transparent=True)
    text = drawn.getvalue().replace(INK, "currentColor").replace("<defs>", f"{_SCHEMES}<defs>", 1)
    return data_uri("image/svg+xml", text.encode())
