# Sourced by scripts/demo, test and check: finds a Python, and keeps the clone's own virtual environment, .venv.
#
# `use_venv SET` ends with PY pointing at an interpreter that has what SET needs:
#   demo    knnkit[build]                       check   knnkit[test]
#   test    knnkit[build,agent,test,dask]
# An environment is built once: a stamp in .venv holds a hash of pyproject.toml, of the interpreter and of the place of
# the clone, so that a second run starts at once. KNNKIT_VENV names an environment to use as it is; PYTHON names the
# interpreter to build .venv from. Nothing outside the clone is changed.

# TensorFlow starts in 5 s with compiled bytecode and in 15 s without.
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '%s\n' "$*" >&2; }
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 2
}

find_python() {
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.10 python3.14 python3}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "no Python 3.10 to 3.14 found (looked for ${PYTHON:-python3.11, python3.12, python3.13, python3.10, python3.14, python3})" \
    "On Debian, Raspberry Pi OS or Ubuntu: sudo apt-get install python3 python3-venv python3-pip" \
    "Or name one: PYTHON=/path/to/python3.11 scripts/$(basename "$0")"
}

require_space() { # gigabytes, what for
  free_kb=$(df -Pk . | awk 'NR == 2 { print $4 }')
  if [ "${free_kb:-0}" -lt $(($1 * 1024 * 1024)) ]; then
    fail "$2 needs $1 GB of free disk in $PWD; there is $((free_kb / 1024)) MB" "Free some space, or clone to another disk."
  fi
}

make_venv() { # interpreter
  say "making the virtual environment .venv with $("$1" --version 2>&1)"
  rm -rf .venv
  if "$1" -c 'import ensurepip' 2>/dev/null && "$1" -m venv .venv; then return; fi
  # Debian splits ensurepip into python3-venv; a pip of 22.3 or later can fill an environment from outside.
  rm -rf .venv
  if "$1" -m venv --without-pip .venv 2>/dev/null && "$1" -m pip --python .venv/bin/python install --quiet pip; then return; fi
  rm -rf .venv
  fail "$1 can make no virtual environment with pip" \
    "On Debian, Raspberry Pi OS or Ubuntu: sudo apt-get install python3-venv python3-pip"
}

explain_pip_failure() { # log
  say ""
  tail -n 12 "$1" | sed 's/^/  | /' >&2
  if grep -qiE 'no space left|disk quota' "$1"; then
    fail "pip ran out of disk space" "Free some space, then run the same command again: it goes on where it stopped."
  elif grep -qiE 'name resolution|NewConnection|ConnectTimeout|ReadTimeout|unreachable|ProxyError|Connection (refused|reset)|getaddrinfo|from versions: none' "$1"; then
    fail "pip could not reach a package index" "Check the network, or pip's settings (pip config list), then run the same command again."
  fi
  fail "pip could not install the dependencies" "The whole log: $1"
}

show_progress() { # pip's lines on standard input; one line that is written over on a terminal, nothing elsewhere
  if [ ! -t 2 ]; then exec cat >/dev/null; fi
  awk '
    /^Installing collected/ { $0 = "unpacking" }
    !/^Collecting|^ *Downloading.*MB\)|^unpacking/ { next }
    { sub(/^ +/, ""); sub(/ \(from .*/, ""); printf "\r\033[K  %.90s", $0; fflush() }
    END { printf "\r\033[K" }' >&2
}

install_into_venv() { # extras
  log=.venv/pip.log
  "$PY" -u -m pip install --no-compile --progress-bar off -e ".[$1]" 2>&1 | tee "$log" | show_progress
  [ "${PIPESTATUS[0]}" = 0 ] || return 1
  # pip would use one processor for it. Some packages hold templates that no Python compiles.
  "$PY" -m compileall -qq -j 0 "$PWD/.venv/lib" || true
}

use_venv() {
  if [ -n "${KNNKIT_VENV:-}" ]; then
    PY=$KNNKIT_VENV/bin/python
    [ -x "$PY" ] || fail "KNNKIT_VENV=$KNNKIT_VENV holds no bin/python"
    export PYTHONPATH=$PWD
    return
  fi
  case $1 in
    demo) extras=build space=4 sets="demo test" patience="TensorFlow makes it minutes" ;;
    check) extras=test space=1 sets="check test" patience="about a minute" ;;
    test) extras=build,agent,test,dask space=5 sets="test" patience="TensorFlow makes it minutes" ;;
  esac
  PY=$PWD/.venv/bin/python
  python=$(find_python) || exit 2
  key=$({ cat pyproject.toml && "$python" -VV && pwd -P; } | cksum | tr ' ' -)
  if [ -x "$PY" ] && "$PY" -c '' 2>/dev/null; then
    for set in $sets; do
      if [ "$(cat ".venv/knnkit-$set" 2>/dev/null)" = "$key" ]; then return; fi
    done
  fi
  # Two of these scripts at once: the second waits, and finds the work done.
  if [ -z "${KNNKIT_VENV_LOCKED:-}" ] && command -v flock >/dev/null; then
    exec 8>.venv-lock
    flock -n 8 || { say "waiting for another script that sets up .venv"; flock 8; }
    KNNKIT_VENV_LOCKED=1 use_venv "$1"
    exec 8>&-
    return
  fi
  if [ "$1" != check ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 14))'; then
    say "TensorFlow has only a release candidate for Python 3.14, and nothing is tested with it; older Pythons: PYTHON=python3.13"
  fi
  require_space "$space" "the virtual environment"
  if [ ! -x "$PY" ] || ! "$PY" -m pip --version >/dev/null 2>&1 ||
    [ "$(cat .venv/knnkit-base 2>/dev/null)" != "$("$python" -VV; pwd -P)" ]; then
    make_venv "$python"
    { "$python" -VV; pwd -P; } >.venv/knnkit-base
  fi
  say "installing knnkit[$extras] into .venv (once; $patience)"
  started=$SECONDS
  install_into_venv "$extras" || explain_pip_failure "$log"
  rm -f .venv/knnkit-demo .venv/knnkit-check .venv/knnkit-test
  printf '%s\n' "$key" >".venv/knnkit-$1"
  say "installed in $((SECONDS - started)) s"
}
