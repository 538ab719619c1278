"""The SVG of a renderer, made fit for standing inside a page that a script brings to life.

No ids, no fonts, no links, no colours. Every card and edge carries its number in ``data-i``, and
every edge gets a second, reversed line for the cotangent, which shows when that has passed.
"""

import re
from xml.etree import ElementTree

PENDING = "gradient: none yet"  # as long as any state of a card; it decides the width
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
            _add_way_back(group)
    for key in ("width", "height"):
        root.set(key, re.sub(r"[a-z]+$", "", root.get(key, "")))
    root.set("aria-hidden", "true")
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element) -> None:
    name, given = element.attrib.pop("id", ""), element.attrib
    if given.get("class") in ("node", "edge"):
        given["data-i"] = re.sub(r"\D", "", name)
    if (element.text or "").strip("\u00a0 ") == PENDING and "font-weight" not in given:
        given["class"] = "state"
    for key in [key for key in given if _is_dress(key, given[key])]:
        del given[key]
    element.tail = None
    if element.tag != "text":
        element.text = None


def _is_dress(key: str, value: str) -> bool:
    """Whether an attribute says what the style sheet of the page decides."""
    if key in ("fill", "stroke"):
        return value != "none"
    return key.startswith(("font-family", "{", "xml")) or (key, value) == ("text-anchor", "start")


def _add_way_back(group: ElementTree.Element) -> None:
    """A copy of the line with its arrowhead at the other end, and a wide one to click on."""
    line, head = group.find("path"), group.find("polygon")
    if line is None:
        return
    way = line.get("d", "")
    corners = re.findall(rf"{_NUMBER},{_NUMBER}", "" if head is None else head.get("points", ""))
    if len(corners) > 1:
        way += f"L{corners[1]}"  # to the tip of the arrowhead, which this line has not
    ElementTree.SubElement(group, "path", {"class": "back", "d": way})
    ElementTree.SubElement(group, "polygon", {"class": "back", "points": _arrowhead(way)})
    ElementTree.SubElement(group, "path", {"class": "hit", "d": way})


def _arrowhead(way: str) -> str:
    """The corners of an arrowhead whose tip is where ``way`` starts."""
    numbers = [float(x) for x in re.findall(_NUMBER, way)]
    (x, y), points = numbers[:2], zip(numbers[2::2], numbers[3::2], strict=True)
    away = next((p for p in points if (p[0] - x) ** 2 + (p[1] - y) ** 2 > 1), (x, y + 1))
    dx, dy = away[0] - x, away[1] - y
    length = (dx * dx + dy * dy) ** 0.5
    dx, dy = dx * _HEAD / length, dy * _HEAD / length
    ends = (x, y), (x + dx - dy / 2, y + dy + dx / 2), (x + dx + dy / 2, y + dy - dx / 2)
    return " ".join(f"{u:.1f},{v:.1f}" for u, v in ends)
