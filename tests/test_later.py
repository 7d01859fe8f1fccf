"""`objstore.later`: nothing is imported before it is used, and then it is the module itself."""

from __future__ import annotations

import colorsys
import subprocess
import sys

import pytest

from objstore.later import Later


def test_it_gives_what_the_module_has():
    late = Later("colorsys")
    assert late.rgb_to_hsv is colorsys.rgb_to_hsv
    with pytest.raises(AttributeError, match=r"colorsys.*no attribute 'rgb_to_nothing'"):
        late.rgb_to_nothing  # noqa: B018


def test_nothing_is_imported_before():
    code = """if True:
        import sys
        from objstore.later import Later
        late = Later("colorsys")
        print(late, "colorsys" in sys.modules)
        late.rgb_to_hsv
        print("colorsys" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["<module 'colorsys', imported when it is used> False", "True"]


def test_a_module_that_is_missing_is_told_when_it_is_used():
    late = Later("objstore.no_such_module")
    with pytest.raises(ModuleNotFoundError, match=r"objstore\.no_such_module"):
        late.anything  # noqa: B018
