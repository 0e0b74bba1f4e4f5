"""`knnkit card`: writes the model card of a release.

Also prints the in-toto statement and the CycloneDX document that the model file holds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from device_agent.shared.safe_files import whole_file
from knnkit.commands import _output
from knnkit.errors import UsageError, raised_as, unwritten
from knnkit.release.card import read_card, read_provenance, read_sbom
from knnkit.render import card


def run(arguments: argparse.Namespace) -> int:
    """Writes the model card, or the document that --provenance or --sbom asks for; returns 0."""
    path: Path = arguments.path
    model = _output.model_file(path)
    if arguments.output == Path("-"):
        arguments.output = None
    if arguments.output is not None:
        _output.check_new_file("-o", arguments.output, [model, *model.parent.glob("*")] if path.is_dir() else [model])
    with raised_as(UsageError, hint="knnkit build --force"):
        data = _wanted(arguments, path, model)
    if arguments.output is None:
        text = data.decode(errors="replace")
        if not text.replace("\n", "").isprintable():  # a stranger's model could steer the terminal
            said = f"{model}: the document has control characters, which a terminal would obey"
            raise UsageError(said, hint="-o FILE writes the document to a file")
        sys.stdout.write(text)
        return 0
    try:
        with whole_file(arguments.output) as file:
            file.write(data)
    except OSError as error:
        raise unwritten(str(arguments.output), error, hint="-o card.md") from None
    return 0


def _wanted(arguments: argparse.Namespace, path: Path, model: Path) -> bytes:
    if arguments.provenance:
        return read_provenance(model) + b"\n"
    if arguments.sbom:
        return read_sbom(model) + b"\n"
    return card.markdown(read_card(path)).encode()
