#!/usr/bin/env bash
# Builds the pinned control plane into a cache folder named after the pins, and prints that folder.
# Idempotent: a second call with the same pins compiles nothing. `build.sh --path` only prints where it is or would be.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
version=v1.36.3

key="$(cat "$here"/go.mod "$here"/go.sum "$here"/kwok/go.mod "$here"/kwok/go.sum "$here"/etcd/go.mod "$here"/etcd/go.sum "$here"/tools.go | sha256sum | cut -c1-16)"
out="${XDG_CACHE_HOME:-$HOME/.cache}/deployctl/controlplane/$key"
if [ "${1:-}" = --path ]; then echo "$out"; exit 0; fi
if [ -e "$out/.complete" ]; then echo "$out"; exit 0; fi
command -v go >/dev/null || { echo "error: the Go tool chain (1.26 or newer) is not on PATH" >&2; exit 1; }

mkdir -p "$(dirname "$out")"
# Two builds at once must not meet: the second waits, then finds the first one's work.
exec 9>"$out.lock"
flock 9
if [ -e "$out/.complete" ]; then echo "$out"; exit 0; fi
echo "Building the control plane: about 13 CPU minutes and 1.5 GB of module downloads and object files the first time." >&2
work="$(mktemp -d "$out.XXXXXX")"
trap 'rm -rf "$work"' EXIT

export CGO_ENABLED=0 GOFLAGS="-mod=readonly -trimpath -buildvcs=false"
build() { # build FOLDER OUTPUT PACKAGE [LDFLAGS]: at the lowest priority, since tests and people share the machine
  echo "  $(date +%T) $2" >&2
  (cd "$here/$1" && nice -n 19 go build -ldflags "-s -w ${4:-}" -o "$work/$2" "$3" >&2)
}

build etcd etcd go.etcd.io/etcd/server/v3
build kwok kwok sigs.k8s.io/kwok/cmd/kwok
# Without these the programs call themselves v0.0.0-master+$Format$, which no client can parse.
stamp="-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
build . kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "$stamp"
build . kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager "$stamp"
build . kube-scheduler k8s.io/kubernetes/cmd/kube-scheduler "$stamp"
build . kubectl k8s.io/kubernetes/cmd/kubectl "$stamp" # for the test that compares our diff with its own

# kwok plays the kubelets; how fast its pods start and end is written in stages, which lie in its own module.
stages="$(cd "$here/kwok" && go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage"
first=1
: >"$work/stages.yaml"
for file in "$stages"/node/fast/node-initialize.yaml "$stages"/node/heartbeat/node-heartbeat.yaml "$stages"/pod/fast/pod-{ready,complete,delete}.yaml; do
  [ -n "$first" ] || echo '---' >>"$work/stages.yaml"
  first=
  cat "$file" >>"$work/stages.yaml"
done
chmod -R u+w "$work"
touch "$work/.complete"
rm -rf "$out"
mv "$work" "$out"
trap - EXIT
echo "$out"
