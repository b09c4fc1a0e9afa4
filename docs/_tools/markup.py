r"""Renders formulas as MathML when the site is built, so that reading a page runs no script and fetches nothing.

Pages write GitHub's own marks: a fenced block of kind ``math``, and ``$`x`$`` inside a line. Docstrings write the
reStructuredText ones, ``.. math::`` and ``:math:`x```; roles such as ``:func:`x``` become code.
"""

from __future__ import annotations

import re
import textwrap

from griffe import Docstring, Extension, Object
from latex2mathml.converter import convert

FENCE = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`([^`\n]+)`\$")
DIRECTIVE = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*|[ ]*$))*)", re.MULTILINE)
MATH_ROLE = re.compile(r":math:`([^`]+)`")
ROLE = re.compile(r":(?:func|class|meth|mod|attr):`~?([^`]+)`")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Gives the page with its formulas as MathML; MkDocs calls it for every page."""
    return INLINE.sub(_inline, FENCE.sub(lambda found: _block(found[1], ""), markdown))


class Markup(Extension):
    """Does the same for docstrings; the reference pages' generator calls it for every object."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Rewrites the docstring of ``obj``."""
        if isinstance(obj.docstring, Docstring):
            text = DIRECTIVE.sub(lambda found: _block(found[2], found[1]), obj.docstring.value)
            obj.docstring.value = ROLE.sub(r"`\1`", MATH_ROLE.sub(_inline, text))


def _block(formula: str, indent: str) -> str:
    html = convert(" ".join(textwrap.dedent(formula).split()), display="block")
    return f"{indent}<div>{html}</div>\n"


def _inline(found: re.Match[str]) -> str:
    return str(convert(found[1]))
