"""A matplotlib figure as SVG inside an HTML page.

What a page needs otherwise than a file: no prolog, metadata or style element, ids that are its own, colors from the page's
variables instead of fixed ones, the page's font, and an alternative text.
"""

import io
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from markupsafe import Markup

from mncompress.report._style import PALETTE

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_ROLES = {value: role for role, value in PALETTE.items()}


def inline_svg(figure: Any, name: str, text: str) -> Markup:
    """The SVG element of `figure`.

    Args:
        figure: a `matplotlib.figure.Figure` in the colors of `PALETTE`.
        name: begins the ids.
        text: the alternative text.
    """
    from matplotlib import rc_context

    written = io.BytesIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(written, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(written.getvalue())
    _drop_(root, f"{_SVG}metadata")
    _drop_(root, f"{_SVG}style")
    used = {reference for element in root.iter() for value in element.attrib.values() for reference in re.findall(r"#(\w+)", value)}
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        converted = [_convert(key, value, name, used) for key, value in element.attrib.items()]
        element.attrib = {key: value for key, value in converted if value}
    box = root.attrib["viewBox"]
    root.attrib = {"class": "chart", "viewBox": box, "role": "img", "aria-label": text}
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))


def _drop_(root: ElementTree.Element, tag: str) -> None:
    for parent in root.iter():
        for child in parent.findall(tag):
            parent.remove(child)


def _convert(key: str, value: str, name: str, used: set[str]) -> tuple[str, str]:
    """An attribute in the page's terms; an empty value where it goes."""
    key = key.removeprefix(_LINK)
    if key == "id":
        return key, f"{name}-{value}" if value in used else ""
    if key == "style":
        # matplotlib writes font, or font-size and font-family
        value = re.sub(r"font: (?:[\w-]+ )*?([\d.]+px) [^;]*", r"font-size: \1", value)
        value = re.sub(r"font-family: [^;]*;?", "", value)
        return key, re.sub(r"#[0-9a-f]{6}", lambda found: f"var(--{_ROLES.get(found.group(), 'ink')})", value)
    return key, re.sub(r"#(\w+)", rf"#{name}-\1", value) if key in ("href", "clip-path") else value
