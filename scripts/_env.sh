# Sourced by the other scripts: finds a Python, has it set up .venv where that is needed, and sets $root and $python.
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd -P) || exit 2

host=
for candidate in python3 python3.13 python3.12 python3.11 python; do
  if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then
    host=$candidate
    break
  fi
done
if [ -z "$host" ]; then
  echo "translator needs Python 3.11, 3.12 or 3.13, and none is on the PATH (python3 is: $(python3 --version 2>&1))" >&2
  echo "  fix: install one, with pip (Debian: apt-get install python3 python3-pip python3-venv)" >&2
  exit 2
fi

"$host" -I "$root/scripts/_setup.py" </dev/null || exit $?
python=$root/.venv/bin/python
