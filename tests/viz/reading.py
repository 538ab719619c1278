"""Parse DOT text: cards, numbers, edges and clusters."""

import re


def cards(dot):
    """Title -> the HTML of its card."""
    found = re.findall(r"^ *n\d+ \[label=<(.*)>\];$", dot, re.M)
    return {re.search(r"<B>(.*?)</B>", html).group(1): html for html in found}


def numbers(html):
    """The text of every number cell of a card."""
    return re.findall(r'<TD BORDER="1"[^>]*>(?:<FONT[^>]*>)+([^<]*)<', html)


def edges(dot):
    """(title, title) for every edge."""
    titles = dict(re.findall(r"^ *(n\d+) \[label=<.*?<B>(.*?)</B>", dot, re.M))
    return [(titles[a], titles[b]) for a, b in re.findall(r"^ *(n\d+) -> (n\d+)", dot, re.M)]


def clusters(dot):
    """(id, name) of every cluster."""
    return re.findall(r"subgraph (cluster_\d+) \{\n *graph \[label=<<B>(.*?)</B>", dot)
