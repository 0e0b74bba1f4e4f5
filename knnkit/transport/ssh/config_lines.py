"""Lines of an ssh_config file, split into words as OpenSSH splits them (its strdelim and argv_split)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from device_agent.shared.safe_files import read_small
from knnkit.transport.ssh.settings import CannotFollow, WrongConfig

#: Largest ssh_config that is read, in characters.
_MAX_CONFIG = 1 << 20
_BLANK = " \t\r\n"


@dataclass(frozen=True)
class Line:
    """One setting: `rest` is what follows the keyword, as it is written."""

    path: str
    number: int
    keyword: str  # in lower case
    rest: str

    def wrong(self, said: str) -> WrongConfig:
        """Returns the error for a line that ssh would refuse."""
        return WrongConfig(f"{self.path}:{self.number}: {said}")

    def cannot(self, word: str, said: str) -> CannotFollow:
        """Returns the error for a word that knnkit cannot follow without OpenSSH."""
        hint = "knnkit cannot follow it without OpenSSH's ssh"
        return CannotFollow(f"{self.path}:{self.number}: {word}: {said}; {hint}")

    def words(self) -> list[str]:
        """Returns the arguments, without quotes and comment.

        Raises:
            WrongConfig: a quote has no end, or there is no argument.
        """
        words: list[str] = []
        at, text = 0, self.rest
        while at < len(text) and text[at] != "#":
            if text[at] in " \t":
                at += 1
                continue
            word, at = self._word(text, at)
            words.append(word)
        return words

    def _word(self, text: str, at: int) -> tuple[str, int]:
        word, quote = "", ""
        while at < len(text) and (quote or text[at] not in " \t"):
            letter = text[at]
            if letter == "\\" and text[at + 1 : at + 2] in (("'", '"', "\\") if quote else ("'", '"', "\\", " ")):
                at += 1
                word += text[at]
            elif letter == quote:
                quote = ""
            elif not quote and letter in "'\"":
                quote = letter
            else:
                word += letter
            at += 1
        if quote:
            raise self.wrong(f"{self.rest[:60]}: a quote has no end")
        return word, at


def read(path: Path) -> Iterator[Line]:
    """Yields the settings of one file.

    Raises:
        OSError: it cannot be read, or is too large.
    """
    text = read_small(path, _MAX_CONFIG, follow=True).decode("utf-8", "surrogateescape")
    if len(text) > _MAX_CONFIG:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.rstrip(_BLANK + "\f").lstrip(_BLANK)
        if stripped and not stripped.startswith("#"):
            yield _line(str(path), number, stripped)


def _line(path: str, number: int, text: str) -> Line:
    end = next((at for at, letter in enumerate(text) if letter in _BLANK + '="'), len(text))
    if text[end : end + 1] == '"':
        raise Line(path, number, text[:end], text).cannot(text[:60], "a keyword in quotes")
    rest = text[end:].lstrip(_BLANK)
    rest = rest[1:].lstrip(_BLANK) if rest.startswith("=") else rest
    line = Line(path, number, text[:end].lower(), rest)
    if not rest:
        raise line.wrong(f"{text[:60]}: the value is missing")
    return line


def match_words(line: Line) -> list[str]:
    """Returns the words of a `Match` line, which OpenSSH splits at `=` as well.

    Raises:
        CannotFollow: versions of OpenSSH read the line in different ways.
    """
    text, words = line.rest, []
    while text and not text.startswith("#"):
        if text[0] == '"':
            word, quote, text = text[1:].partition('"')
            if not quote:
                raise line.wrong("Match: a quote has no end")
            if text[:1] not in ("", *_BLANK):
                raise line.cannot(line.rest[:60], "a quote within a word")
        else:
            end = next((at for at, letter in enumerate(text) if letter in _BLANK + '="'), len(text))
            word, text = text[:end], text[end:]
            if text.startswith('"') or set("'\\") & set(word):
                raise line.cannot(line.rest[:60], "a quote within a word")
        words.append(word)
        text = text.lstrip(_BLANK)
        text = text[1:].lstrip(_BLANK) if text.startswith("=") else text
    return words
