"""`knnkit completion`: prints a script for completion in a shell.

The script completes commands, flags and choices. It contains all words, taken from the parsers, so that the shell does
not start Python.
"""

from __future__ import annotations

import argparse

from knnkit.commands import COMMANDS, _parsers

_SCRIPT = """\
# knnkit completion {shell}: eval "$(knnkit completion {shell})" in the shell's start-up file
{first}_knnkit() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" words=
  case "${{COMP_WORDS[1]}} ${{COMP_WORDS[COMP_CWORD-1]}}" in
{choices}
    *)
      case "${{COMP_WORDS[1]}} $cur" in
{options}
      esac ;;
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then words="{commands}"; fi
  COMPREPLY=( $(compgen -W "$words" -- "$cur") )
}}
complete -o bashdefault -o default -F _knnkit knnkit
"""
#: Shell -> what stands first in its script.
_SHELLS = {"bash": "", "zsh": "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"}


def run(arguments: argparse.Namespace) -> int:
    """Prints the script; returns 0."""
    choices, options = [], []
    for command in COMMANDS:
        actions = _actions(command)
        flags = " ".join(option for action in actions for option in action.option_strings)
        options.append(f'        "{command} -"*) words="{flags}" ;;')
        for action in filter(lambda action: action.choices, actions):
            words = " ".join(map(str, action.choices or ()))
            before = action.option_strings or [command]
            choices += [f'    "{command} {word}") words="{words}" ;;' for word in before]
    first = _SHELLS[arguments.shell]
    listed = {"choices": "\n".join(choices), "options": "\n".join(options), "commands": " ".join(COMMANDS)}
    print(_SCRIPT.format(shell=arguments.shell, first=first, **listed), end="")
    return 0


def _actions(command: str) -> list[argparse.Action]:
    parser = argparse.ArgumentParser()
    _parsers.CONFIGURE[command](parser)
    return parser._actions
