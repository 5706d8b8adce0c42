#!/bin/sh
# gen.sh [DIR]: an authority, a server and two clients, ready to try a worker with. DIR is out/ beside this script
# unless given. What is there already is kept: run it as often as you like.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/out}
mkdir -p -m 700 "$out"
out=$(cd "$out" && pwd)
cd "$here/.."

for python in .venv/bin/python python3 ''; do
    [ -n "$python" ] && "$python" -c 'import ca.authority' 2>/dev/null && break
done
if [ -z "$python" ]; then
    echo "error: found no Python 3.11 or later that has the cryptography package" >&2
    echo "hint: 'make certs' at the top of the checkout sets one up and calls this again" >&2
    exit 1
fi

make_once() { # FILE COMMAND...
    file=$1
    shift
    if [ -e "$out/$file" ]; then
        echo "kept $out/$file"
    else
        "$python" -m ca "$@" --dir "$out"
    fi
}
make_once ca.pem init
make_once server.pem issue server
make_once alice.pem issue client alice
make_once bob.pem issue client bob
