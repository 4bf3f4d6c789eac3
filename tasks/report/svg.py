"""Charts as inline SVG for `write_report`, with the colours and the font of the page.

matplotlib draws with sentinel colours, one for each of the page's CSS variables, and leaves text as
text.  So one chart serves light and dark.
"""

import io
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.figure import Figure

WIDTH = 360
"""The width of a chart in its own units; text is 11 of them, readable on a phone as well."""

_VARIABLES = ("ink", "muted", "grid", "card", "c1", "c2", "c3", "c4", "c5", "c6")
COLOURS = {name: f"#{number:06d}" for number, name in enumerate(_VARIABLES, 1)}
"""By variable, the sentinel that is drawn with and then replaced by var(--name)."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "raee",
    "text.parse_math": False,
    "font.size": 11,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["grid"],
    "axes.labelcolor": COLOURS["muted"],
    "xtick.color": COLOURS["grid"],
    "ytick.color": COLOURS["grid"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.major.size": 0,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "lines.linewidth": 2,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "legend.borderaxespad": 0,
    "legend.borderpad": 0,
    "legend.handlelength": 1.8,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 0.9,
}

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


def inline(figure: Figure, name: str, title: str, description: str) -> Markup:
    """A figure as an `<svg>` element of the page, without the parts that only a file needs.

    name: begins the ids in it, so that they are unique on the page.  title, description: for people
    who do not see the chart.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for parent in root.iter():
        for child in list(parent):
            # Such a style sheet would apply to the whole page.
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = _attributes(element, name)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-description",
    }
    for index, (tag, text) in enumerate((("title", title), ("desc", description))):
        ids = {"id": f"{name}-{'title' if tag == 'title' else 'description'}"}
        element = ElementTree.Element(tag, ids)
        element.text = text
        root.insert(index, element)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _attributes(element: ElementTree.Element, name: str) -> dict[str, str]:
    found = dict(element.attrib)
    identity = found.pop("id", None)
    if identity is not None and element.tag != "g":  # nothing refers to a group
        found["id"] = f"{name}-{identity}"
    if _LINK in found:
        found["href"] = f"#{name}-{found.pop(_LINK)[1:]}"
    if "clip-path" in found:
        found["clip-path"] = found["clip-path"].replace("#", f"#{name}-")
    if "d" in found:
        found["d"] = " ".join(found["d"].split())
    if "style" in found:
        kept = [s for s in found["style"].split("; ") if not s.startswith("font-family")]
        style = "; ".join(kept)
        for variable, colour in COLOURS.items():
            style = style.replace(colour, f"var(--{variable})")
        found["style"] = style
    return found
