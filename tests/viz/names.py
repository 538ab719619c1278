"""Names that try to break out of DOT, SVG, HTML, JSON and terminals, and how they are shown."""

VERBATIM = [
    '"quoted"', "it's", "<b>bold</b>", "</script><script>alert(1)</script>", "&#955;", "&amp;",
    "&nbsp;", "a:b", "n0", "trailing\\", "\\N \\G \\E \\l \\\\", "{a|b}", "]]>", "<!-- x", "-->",
    "%s %(x)s", "{0}", "->", "digraph {", "a  b", "שלום", "مرحبا", "👩\u200d👧", "\u00e9 e\u0301",
    "日本語", "#", "//", "/* */", "javascript:alert(1)", "λ", "$title", "gradient: none yet",
    "<img src=x onerror=alert(1)>", "</style><svg onload=alert(1)>",
]  # fmt: skip
MADE_VISIBLE = {
    "a\0b": "a␀b",
    "line\nbreak\ttab\r": "line␊break␉tab␍",
    "\x1b[31mred": "␛[31mred",
    "\x7f\x85": "␡⟨U+0085⟩",
    "\u202eevil": "⟨U+202E⟩evil",
    "\ud800": "⟨U+D800⟩",
    "\uffff": "\ufffd",
    "a\u2028b": "a⟨U+2028⟩b",
    "x" * 10_000: "x" * 19 + "…" + "x" * 20,
}
SHOWN = [*VERBATIM, *MADE_VISIBLE.values()]
ALL = [*VERBATIM, *MADE_VISIBLE]


def without_marks(text: str) -> str:
    """``text`` without the isolates around right-to-left names, with plain spaces."""
    return "".join(c for c in text if c not in "\u200e\u2068\u2069").replace("\u00a0", " ")
