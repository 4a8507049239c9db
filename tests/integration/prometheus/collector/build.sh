#!/usr/bin/env bash
# Builds the OpenTelemetry Collector with the components that we configure, into a cache folder named after the pins, and prints it.
# Idempotent. `build.sh --path` only prints where it is or would be.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
key="$(cat "$here"/go.mod "$here"/go.sum "$here"/main.go | sha256sum | cut -c1-16)"
out="${XDG_CACHE_HOME:-$HOME/.cache}/deployctl/collector/$key"
if [ "${1:-}" = --path ]; then echo "$out/otelcol"; exit 0; fi
mkdir -p "$out"
exec 9>"$out.lock"
flock 9
if [ -x "$out/otelcol" ]; then echo "$out/otelcol"; exit 0; fi
command -v go >/dev/null || { echo "error: the Go tool chain (1.26 or newer) is not on PATH" >&2; exit 1; }
echo "Building the OpenTelemetry Collector: about 2 CPU minutes the first time." >&2
export CGO_ENABLED=0 GOFLAGS="-mod=readonly -trimpath -buildvcs=false"
(cd "$here" && nice -n 19 go build -ldflags "-s -w" -o "$out/otelcol.new" . >&2)
mv "$out/otelcol.new" "$out/otelcol"
echo "$out/otelcol"
