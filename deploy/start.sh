#!/bin/sh
# What a container of ours runs: the gateway, after its scrape key was put where it is looked for, or any command of melete.
set -eu
if [ "$*" = gateway ]; then
  umask 077
  mkdir -p "$MELETE_HOME/gateway"
  printf %s "$MELETE_SCRAPE_KEY" > "$MELETE_HOME/gateway/scrape.key"
  unset MELETE_SCRAPE_KEY
  exec melete gateway up --foreground --host 0.0.0.0 --port 4000
fi
exec melete "$@"
