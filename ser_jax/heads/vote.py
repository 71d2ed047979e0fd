"""From the scores of chunks to one decision or number per unit (utterance, or story in the sense of ComParE 2020)."""

import numpy as np

VOTES = ("sum", "compare2020")


def vote(scores, units, classes, rule="sum"):
    """Decides per unit.

    Args:
      scores: float[N, K], the score of each chunk for each class.
      units: length N, the unit of each chunk.
      classes: K labels in sorted order.
      rule: "sum": the class with the greatest sum of scores over the chunks. "compare2020": each chunk votes for its
        best class and the class with most votes wins, as in the published ComParE 2020 scripts. Either way the first
        class in sorted label order wins a tie.

    Returns:
      (names, predictions): the sorted units and the label of each.
    """
    names, member = np.unique(np.asarray(units, dtype=object), return_inverse=True)
    scores = np.asarray(scores, np.float64)
    if rule == "compare2020":
        scores = np.eye(len(classes))[scores.argmax(1)]
    elif rule != "sum":
        raise ValueError(f"unknown vote {rule!r}; known: {', '.join(VOTES)}")
    total = np.zeros((len(names), len(classes)))
    np.add.at(total, member.reshape(-1), scores)
    return names, np.asarray(classes, dtype=object)[total.argmax(1)]


def unit_labels(labels, units):
    """The label of each unit: the most frequent one of its chunks, the first in sorted order when several are.

    Returns:
      (names, labels): the sorted units and the label of each.
    """
    classes = sorted(set(labels))
    place = {label: index for index, label in enumerate(classes)}
    return vote(np.eye(len(classes))[[place[label] for label in labels]], units, classes)


def average(values, units):
    """The mean of the values of each unit.

    Args:
      values: float[N], of each chunk.
      units: length N, the unit of each chunk.

    Returns:
      (names, means): the sorted units and the mean of each, float64.
    """
    names, member = np.unique(np.asarray(units, dtype=object), return_inverse=True)
    member = member.reshape(-1)
    return names, np.bincount(member, weights=np.asarray(values, np.float64)) / np.bincount(member)
