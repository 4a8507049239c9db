"""The runner itself: a script that expects something else must fail."""

from __future__ import annotations

import pytest
import textscript


def play(text, folder):
    work = folder / "work"
    work.mkdir()
    textscript.play(textscript.parse(text), work)


def test_a_true_script_passes(tmp_path):
    play("-- file a/b.txt --\none\ntwo\n-- run --\n$ cat a/b.txt\none\n...\n$ echo x 1 y\nx ... y\n", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "-- run --\n$ echo a\nb\n",
        "-- run --\n$ echo a; echo b\na\n",
        "-- run --\n$ exit 3\n",
        "-- run --\n$ true\n# exit 1\n",
        "-- run --\n$ echo a >&2\n! b\n",
        "-- run --\n$ echo new > f\n# untouched\n",
        "-- run --\n$ printf '1\\n2\\n3\\n4\\n5\\nlate\\n' >&2\n# early late\n",
        "-- run --\n$ echo 'Traceback (most recent call last)'\n",
    ],
)
def test_a_false_script_fails(text, tmp_path):
    with pytest.raises(textscript.Mismatch):
        play(text, tmp_path)


@pytest.mark.parametrize("text", ["-- run --\n", "-- run --\nno command\n", "only a comment\n"])
def test_a_script_that_says_nothing_is_an_error(text):
    with pytest.raises(ValueError):
        textscript.parse(text)
