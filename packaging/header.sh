#!/bin/sh
c='import sys;del sys.argv[0];@START@'
for p in /usr/bin/python3 /usr/local/bin/python3 /usr/libexec/platform-python; do
[ -x $p ] && exec $p -ISBc "$c" "$0" "$@"
done
exec python3 -ISBc "$c" "$0" "$@"
