# Sourced by the other scripts: has .venv set up where that is needed, and sets $root and $python.
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd -P) || exit 2
python=$root/.venv/bin/python

# The first Python on the PATH that the locked packages have builds for; in an activated .venv, the one it was made from.
find_host() {
  for name in python3 python3.13 python3.12 python3.11 python; do
    host=$("$name" -c '
import sys
inside = sys.prefix == sys.argv[1]
print(sys._base_executable if inside else sys.executable)
sys.exit(not (3, 11) <= sys.version_info < (3, 14))
' "$root/.venv" 2>/dev/null) && return
  done
  echo "translator needs Python 3.11, 3.12 or 3.13, and none is on the PATH (python3 is: $(python3 --version 2>&1))" >&2
  echo "  fix: install one, with pip (Debian: apt-get install python3 python3-pip python3-venv)" >&2
  exit 2
}

if ! "$python" -I -S "$root/scripts/_setup.py" --is-ready 2>/dev/null; then
  find_host
  "$host" -I "$root/scripts/_setup.py" </dev/null || exit $?
fi
