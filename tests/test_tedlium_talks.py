"""TED-LIUM, some of its training talks (`talks=N`)."""

import official_archives as originals
import pytest

from ser_jax.corpora import reader
from ser_jax.corpora.tedlium import Tedlium
from ser_jax.errors import UsageError, UserError


@pytest.fixture
def talks(tmp_path):
    """Twelve training talks, and two each of dev and test."""
    files = originals.tedlium_files()
    for name, data in list(files.items()):
        if "/train/" in name:
            for number in range(5):
                files[name.replace("_2010", f"_201{number + 1}")] = data.replace(b"_2010", b"_201%d" % (number + 1))
    originals.write_tree(tmp_path, files)
    return tmp_path


def keys(source, count):
    return {unit.key for unit in reader("tedlium", source, {"talks": str(count)}).units()}


def test_fewer_talks_are_among_more_and_do_not_depend_on_the_others(talks):
    whole = keys(talks, 0)
    assert whole == {unit.key for unit in Tedlium(talks).units()} and len(whole) == 12 + 4
    held_out = {key for key in whole if not key.startswith("train/")}
    chosen = [keys(talks, count) for count in range(1, 13)]
    for count, found in enumerate(chosen, 1):
        assert len(found) == count + 4 and found > held_out and found <= chosen[-1] == whole
    assert all(some < more for some, more in zip(chosen, chosen[1:], strict=False))
    first, = chosen[0] - held_out
    assert any(first != min(found - held_out) for found in chosen)  # not the order of the names
    left_out, = chosen[11] - chosen[10]
    (talks / "TEDLIUM_release2/train/stm" / f"{left_out.split('/')[1]}.stm").unlink()
    assert [keys(talks, count) for count in range(1, 12)] == chosen[:11]


def test_options_of_the_choice(talks):
    assert Tedlium(talks, talks=3).options()["talks"] == 3
    assert "talks" not in Tedlium(talks).options()  # what was prepared before is still the same corpus
    with pytest.raises(UserError, match="12 training talks; lower the option talks=13"):
        Tedlium(talks, talks=13).units()
    with pytest.raises(UsageError, match="with via=tree alone"):
        Tedlium(talks, via="tfds", talks=3)
    with pytest.raises(UsageError, match="0 = all"):
        Tedlium(talks, talks=-1)
