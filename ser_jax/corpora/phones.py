"""TIMIT's phone labels: 61 as transcribed, 48 as modelled, 39 as scored (Lee and Hon 1989, table I).

K.-F. Lee and H.-W. Hon, "Speaker-independent phone recognition using hidden Markov models", IEEE Transactions on
Acoustics, Speech, and Signal Processing 37(11), 1989. The 48 names are those of Kaldi's egs/timit/s5 recipe: `cl` and
`vcl` are the closures of voiceless and voiced stops, `epi` the epenthetic silence, `sil` the silences h# and pau. The
glottal stop q is deleted. A label that two of the sets share means the same in both.
"""

PHONE_SETS = ("timit", "own")  # "own": labels that are used as they are, with the silence "sil"
SILENCE = "sil"
STATES = 3  # of the model of a phone

_MODELLED_AND_SCORED = {  # label of the transcription: (label of the model, label of the score)
    "aa": ("aa", "aa"), "ae": ("ae", "ae"), "ah": ("ah", "ah"), "ao": ("ao", "aa"), "aw": ("aw", "aw"),
    "ax": ("ax", "ah"), "ax-h": ("ax", "ah"), "axr": ("er", "er"), "ay": ("ay", "ay"), "b": ("b", "b"),
    "bcl": ("vcl", "sil"), "ch": ("ch", "ch"), "d": ("d", "d"), "dcl": ("vcl", "sil"), "dh": ("dh", "dh"),
    "dx": ("dx", "dx"), "eh": ("eh", "eh"), "el": ("el", "l"), "em": ("m", "m"), "en": ("en", "n"),
    "eng": ("ng", "ng"), "epi": ("epi", "sil"), "er": ("er", "er"), "ey": ("ey", "ey"), "f": ("f", "f"),
    "g": ("g", "g"), "gcl": ("vcl", "sil"), "h#": ("sil", "sil"), "hh": ("hh", "hh"), "hv": ("hh", "hh"),
    "ih": ("ih", "ih"), "ix": ("ix", "ih"), "iy": ("iy", "iy"), "jh": ("jh", "jh"), "k": ("k", "k"),
    "kcl": ("cl", "sil"), "l": ("l", "l"), "m": ("m", "m"), "n": ("n", "n"), "ng": ("ng", "ng"),
    "nx": ("n", "n"), "ow": ("ow", "ow"), "oy": ("oy", "oy"), "p": ("p", "p"), "pau": ("sil", "sil"),
    "pcl": ("cl", "sil"), "q": (None, None), "r": ("r", "r"), "s": ("s", "s"), "sh": ("sh", "sh"),
    "t": ("t", "t"), "tcl": ("cl", "sil"), "th": ("th", "th"), "uh": ("uh", "uh"), "uw": ("uw", "uw"),
    "ux": ("uw", "uw"), "v": ("v", "v"), "w": ("w", "w"), "y": ("y", "y"), "z": ("z", "z"), "zh": ("zh", "sh"),
}

TRANSCRIBED = tuple(_MODELLED_AND_SCORED)  # the 61 labels
MODELLED = tuple(sorted({label for label, _ in _MODELLED_AND_SCORED.values() if label}))  # 48
SCORED = tuple(sorted({label for _, label in _MODELLED_AND_SCORED.values() if label}))  # 39
_FOLDED = {label: scored for label, (_, scored) in _MODELLED_AND_SCORED.items() if scored} | {
    modelled: scored for modelled, scored in _MODELLED_AND_SCORED.values() if modelled}


def to_48(label):
    """The modelled label of one of TIMIT's 61; None for q, which is deleted.

    Raises:
      ValueError: the label is none of the 61.
    """
    if label not in _MODELLED_AND_SCORED:
        raise ValueError(f"phone {label!r} is none of TIMIT's 61 labels")
    return _MODELLED_AND_SCORED[label][0]


def fold(label, phone_set):
    """The scored label, one of 39, of a label of any of TIMIT's three sets; the label itself for phone set "own".

    Raises:
      ValueError: the label is in none of the sets, or it is q, which has no score: leave it out (`to_48` gives None).
    """
    if _known(phone_set) == "own":
        return label
    if label not in _FOLDED:
        raise ValueError(f"phone {label!r} cannot be scored: it is none of TIMIT's labels, or the deleted q")
    return _FOLDED[label]


def is_silence(label, phone_set):
    """True when the label is scored as silence (timit: closures and epenthetic silence too; own: "sil")."""
    if phone_set == "timit" and label == "q":
        return False
    return fold(label, phone_set) == SILENCE


def _known(phone_set):
    if phone_set not in PHONE_SETS:
        raise ValueError(f"phone set {phone_set!r} is unknown: {' or '.join(PHONE_SETS)}")
    return phone_set
