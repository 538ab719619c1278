"""The SVG of a renderer, made fit for a page with a style sheet and a script.

Ids, fonts, links and colours are removed. Every card and edge carries its number in ``data-i``.
Every edge gets a second line in the opposite direction, shown once a cotangent has passed.
"""

import re
from xml.etree import ElementTree

PENDING = "gradient: none yet"  # a long state of a card: the layout makes room for it
_NUMBER = r"-?[\d.]+"
_HEAD = 7.0  # length of an arrowhead


def embedded(svg: str) -> str:
    """The SVG text of a renderer, as an element of an HTML page."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = str(element.tag).partition("}")[2] or element.tag
        _clean(element)
    for parent in list(root.iter()):
        for title in parent.findall("title"):
            parent.remove(title)  # a tooltip with the name of the card in the DOT text
    for group in root.iter("g"):
        if group.get("class") == "edge":
            _add_line_back(group)
    for key in ("width", "height"):
        root.set(key, re.sub(r"[a-z]+$", "", root.get(key, "")))
    root.set("aria-hidden", "true")
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element) -> None:
    name, attributes = element.attrib.pop("id", ""), element.attrib
    if attributes.get("class") in ("node", "edge"):
        attributes["data-i"] = re.sub(r"\D", "", name)
    if (element.text or "").strip("\u00a0 ") == PENDING:
        attributes["class"] = "state"
    for key in [key for key in attributes if _is_style(key, attributes[key])]:
        del attributes[key]
    element.tail = None
    if element.tag != "text":
        element.text = None


def _is_style(key: str, value: str) -> bool:
    """Whether an attribute is removed: the style sheet decides it, or it is of no use in a page."""
    if key in ("fill", "stroke"):
        return value != "none"
    return key.startswith(("font-family", "{", "xml")) or (key, value) == ("text-anchor", "start")


def _add_line_back(group: ElementTree.Element) -> None:
    """Add a copy of the line with its arrowhead at the other end, and a wide one to click on."""
    line, head = group.find("path"), group.find("polygon")
    if line is None:
        return
    path = line.get("d", "")
    corners = re.findall(rf"{_NUMBER},{_NUMBER}", "" if head is None else head.get("points", ""))
    if len(corners) > 1:
        path += f"L{corners[1]}"  # up to the card: this line has no arrowhead there
    ElementTree.SubElement(group, "path", {"class": "back", "d": path})
    ElementTree.SubElement(group, "polygon", {"class": "back", "points": _arrowhead(path)})
    ElementTree.SubElement(group, "path", {"class": "hit", "d": path})


def _arrowhead(path: str) -> str:
    """The corners of an arrowhead whose tip is where ``path`` starts."""
    numbers = [float(x) for x in re.findall(_NUMBER, path)]
    (x, y), points = numbers[:2], zip(numbers[2::2], numbers[3::2], strict=True)
    second = next((p for p in points if (p[0] - x) ** 2 + (p[1] - y) ** 2 > 1), (x, y + 1))
    dx, dy = second[0] - x, second[1] - y
    length = (dx * dx + dy * dy) ** 0.5
    dx, dy = dx * _HEAD / length, dy * _HEAD / length
    corners = (x, y), (x + dx - dy / 2, y + dy + dx / 2), (x + dx + dy / 2, y + dy - dx / 2)
    return " ".join(f"{u:.1f},{v:.1f}" for u, v in corners)
