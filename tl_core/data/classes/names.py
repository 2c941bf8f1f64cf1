"""Names of classes: one name per class, however folders and tables write it."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection
from itertools import chain

from tl_core.errors import InputError
from tl_core.images.files import as_utf8

MISSING_LABELS = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"}
    | {"NULL", "NaN", "NAN", "None", "n/a", "nan", "null"}
)
"""Labels that are none, as pandas reads them."""

_NOT_A_NUMBER = frozenset({"nan", "NaN", "NAN"})


def tidy_class_names(spec: str, names: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the name of the class for each name that was found, and sentences on those that were brought together.

    Spaces around a name are no part of it, and an accented letter is the same in both of its Unicode forms. Bytes that
    are no UTF-8 are written out in digits: tables and pages must be able to hold the name. Names that differ in upper
    and lower case or in spaces alone are asked about, but for single letters.

    Raises:
        InputError: names that may be one class or several, or a name that stands for a missing label.
    """
    tidy = {name: unicodedata.normalize("NFC", as_utf8(name.strip())) for name in names}
    if absent := sorted(name for name in tidy if tidy[name] in _NOT_A_NUMBER):
        raise InputError(
            f"{spec} has a class named {absent[0]!r}, which is how programs write a missing label; expected another "
            "name, or these images elsewhere"
        )
    alike = defaultdict(set)
    for name, class_name in tidy.items():
        alike["".join(class_name.casefold().split())].add(class_name if class_name == name.strip() else name.strip())
    unclear, joined = [], []
    for group in alike.values():
        classes = {unicodedata.normalize("NFC", name) for name in group}
        if len(classes) > 1 and max(map(len, classes)) > 1:
            unclear.append(sorted(classes))
        elif len(classes) == 1 and len(group) > 1:
            joined.append(classes.pop())
    spaced = sorted(name for name in tidy if name != name.strip() and name.strip() in tidy)
    if unclear or spaced:
        pairs = " and ".join(
            " / ".join(map(repr, group)) for group in chain(sorted(unclear), ([name.strip(), name] for name in spaced))
        )
        raise InputError(
            f"{spec} has class names that differ in upper and lower case or in spaces alone, {pairs}: expected one "
            "name for one class, or names that differ in more; rename them"
        )
    said = f"{spec} writes {', '.join(sorted(joined))} in two Unicode forms, which are one class"
    return tidy, (said,) if joined else ()
