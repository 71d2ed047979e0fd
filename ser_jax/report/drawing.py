"""How the figures of a report are drawn: colours, sizes and saving, the same for all of them.

Drawn once by matplotlib, used as SVG in the page and as PNG beside it. The colours of the SVG follow the page. Figures
are narrow (a phone shows them without zooming) and carry no time stamps: equal rows give equal bytes.
"""

import base64
import html
import io
import re

INK, MUTED, RULE, PAPER = "#1f2429", "#5c6670", "#d5dbe1", "#ffffff"
ACCENT, WARN, ALERT, VIOLET, TEAL = "#0b5cad", "#9a5b00", "#b3261e", "#6b3fa0", "#00696b"
VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper", ACCENT: "accent", WARN: "warn", ALERT: "alert",
             VIOLET: "violet", TEAL: "teal"}
WIDTH = 5.4  # inches; 10 pt text is still readable when a phone scales this to its screen
STYLE = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.linewidth": 0.8,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.edgecolor": RULE,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.unicode_minus": True,
}


class Picture:
    """A drawn figure as bytes of PNG and as text of SVG.

    Args:
      text: the alternative text.
      name: of the file, and of what must not be confused with that of other figures of the page.
      dots: per inch, of what is an image inside the SVG (thousands of dots); None where nothing is.
    """

    def __init__(self, figure, text, name, dots=None):
        self.text, self.name = text, name
        self.inches = round(float(figure.get_figwidth()), 2)
        inside = {} if dots is None else {"dpi": dots}
        self.png = _save(figure, "png", dpi=200, metadata={"Software": None})
        self._svg = _save(
            figure, "svg", name=name, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}, **inside
        )

    def svg(self):
        """SVG for a place inside HTML: colours by CSS variable, size by the page, text that can be searched."""
        svg = self._svg.decode("utf-8")
        svg = svg[svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.S)
        # matplotlib numbers its groups anew in every figure of the page.
        svg = re.sub(r'(<g) id="[\w.]+_\d+"', r"\1", svg)
        box = re.search(r'viewBox="([^"]+)"', svg).group(1)
        head = f'<svg viewBox="{box}" role="img" aria-label="{html.escape(self.text)}">'
        svg = head + svg[svg.index(">") + 1 :]
        for colour, variable in VARIABLES.items():
            svg = re.sub(f"(fill|stroke): {colour}", rf"\1: var(--{variable})", svg)
        return svg

    def image(self):
        """PNG as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def stack(sizes, above, below, left, right, bottom=0.0):
    """A figure and the boxes of axes under each other; all lengths in inches, `sizes` are the heights of the axes."""
    height = sum(size + above + below for size in sizes) + bottom
    boxes, top = [], height
    for size in sizes:
        top -= above + size
        boxes.append((left / WIDTH, top / height, (WIDTH - left - right) / WIDTH, size / height))
        top -= below
    return blank(WIDTH, height), boxes


def blank(width, height):
    """An empty figure; inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def style():
    import logging

    import matplotlib

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # a class name in a script that the font lacks
    return matplotlib.rc_context(STYLE)


def _save(figure, form, name="", **options):
    import warnings

    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": f"ser_jax {name}"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format=form, **options)
    return file.getvalue()


def clean(text):
    """One line without control characters, which neither a font nor XML has."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", " ", str(text)).split())


def short(text, length):
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
