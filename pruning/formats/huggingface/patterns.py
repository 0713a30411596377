"""Which regular expressions take time in proportion to what they read, whatever that is.

A backtracking matcher tries again from every choice that it made: repeats inside repeats take
time that doubles with each character, repeats in a row a power of the text's length. Torch-free.
"""

import re

_ATOM = re.compile(
    r"""
    \\[pP]\{\^?[A-Za-z_ =&]{1,40}\}             # \p{Letter}
    | \\[sSdDwWhHnrtfvea.^$|?*+()\[\]{}\\/"'`~!@\#%&=:;,<> -]
    | \\x\{[0-9A-Fa-f]{1,6}\} | \\x[0-9A-Fa-f]{2} | \\u[0-9A-Fa-f]{4}
    | \[\^?\]?(?:\\p\{\^?[A-Za-z_ =&]{1,40}\}|\\.|[^\\\[\]])*\]   # a class without classes inside
    | [^\\\[\](){}|?*+]
    """,
    re.VERBOSE,
)
_REPEAT = re.compile(r"(?:\{\d{0,3}(?:,\d{0,3})?\}|[?*+])[?+]?")


def is_linear(expression: str) -> bool:
    """Whether it is characters and classes in a row, one of them repeated at most, or several such.

    Of what follows a repeat nothing may fail again and again over the same part, so a repeat ends
    the expression: what it took is never given back.
    """
    at, branch_repeats = 0, False
    while at < len(expression):
        if expression[at] == "|":
            branch_repeats = False
            at += 1
            continue
        atom = _ATOM.match(expression, at)
        if atom is None or branch_repeats:
            return False
        at = atom.end()
        repeat = _REPEAT.match(expression, at)
        if repeat is not None:
            branch_repeats = True
            at = repeat.end()
    return True
