#!/usr/bin/env bash
# Prints -race where the race detector can be built: it needs a C compiler.
set -euo pipefail
if [ "$(go env CGO_ENABLED)" = 1 ] && command -v "$(go env CC)" >/dev/null; then
	echo -race
else
	echo "no C compiler: the tests run without the race detector" >&2
fi
