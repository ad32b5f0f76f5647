#!/usr/bin/env bash
# tool.sh PACKAGE VERSION ARGS... runs a Go tool at exactly that version: the
# installed one where it is that version, else `go run PACKAGE@VERSION`.
set -euo pipefail
package=$1 version=$2
shift 2
name=${package##*/}
for file in "$(command -v "$name" || true)" "$(go env GOPATH)/bin/$name"; do
	if [ -x "$file" ] && go version -m "$file" 2>/dev/null | awk -v v="$version" '$1 == "mod" {found = ($3 == v)} END {exit !found}'; then
		exec "$file" "$@"
	fi
done
exec go run "$package@$version" "$@"
