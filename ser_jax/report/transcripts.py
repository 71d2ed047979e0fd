"""Decoded sentences of result rows beside what was said, with the words that differ marked."""

import difflib
import json


def sentences(rows):
    """[(rows, [(id, (reference, hypothesis))])]: each list of examples once, with all the rows that carry it.

    A text is [(words, differs)]; which words differ is a matter of showing, no error is counted here.
    """
    carried = {}
    for row in rows:
        if row["examples"]:
            carried.setdefault(json.dumps(row["examples"]), []).append(row)
    return [(group, [_example(each) for each in group[0]["examples"]]) for group in carried.values()]


def _example(example):
    reference, hypothesis = (str(example.get(key) or "").split() for key in ("reference", "hypothesis"))
    left, right = [], []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, reference, hypothesis, autojunk=False).get_opcodes():
        for words, side in ((reference[a:b], left), (hypothesis[c:d], right)):
            if words:
                side.append((" ".join(words), kind != "equal"))
    return str(example.get("id") or ""), (left, right)
