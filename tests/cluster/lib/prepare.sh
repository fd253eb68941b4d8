# shellcheck shell=bash
# Everything that has to be fetched or built, once a version: Debian packages, binaries, images.

prepare() {
  local missing
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} > 0)); then
    command -v apt-get >/dev/null || cannot_run "these are missing, and there is no apt-get to install them: ${missing[*]}" \
      "install them with this machine's package manager, or $own_cluster_hint"
    step 1 "installing Debian packages: ${missing[*]}" "about 20 s, once" "$logs_dir/packages.log" install_packages "${missing[@]}"
  else
    step_cached 1 "Debian packages"
  fi

  if [[ ! -x $kubernetes_bin/kubernetes ]]; then
    require_go
    step 2 "building kubernetes $kubernetes_version" "about 9 min on 2 cores, once" "$logs_dir/build-kubernetes.log" build_kubernetes
  else
    step_cached 2 "kubernetes $kubernetes_version"
  fi
  if [[ ! -x $coredns_bin/coredns ]]; then
    require_go
    step 3 "building CoreDNS $coredns_version" "1 to 4 min on 2 cores, once" "$logs_dir/build-coredns.log" \
      go_install "$coredns_bin" "github.com/coredns/coredns@$coredns_version"
  else
    step_cached 3 "CoreDNS $coredns_version"
  fi
  if [[ ! -x $helm_bin/helm ]]; then
    require_go
    step 4 "building Helm $helm_version" "about 2 min on 2 cores, once" "$logs_dir/build-helm.log" \
      go_install "$helm_bin" "helm.sh/helm/v3/cmd/helm@$helm_version"
  else
    step_cached 4 "Helm $helm_version"
  fi
  if [[ ! -x $tools_bin/image ]]; then
    require_go
    step 5 "building the cluster's own tools and images" "about 10 s, once" "$logs_dir/build-tools.log" build_tools
  else
    step_cached 5 "tools and images"
  fi
  # Short names for a person's PATH and for the Makefile.
  ln -sfn "$(basename "$kubernetes_bin")/kubectl" "$bin_dir/kubectl"
  ln -sfn "$(basename "$helm_bin")/helm" "$bin_dir/helm"
}

install_packages() {
  # Some of these packages would start a service of their own; ours are started by us alone.
  local policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  local install=(apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=300 "$@")
  # The package lists are there on most machines; an update is for those where they aren't.
  if ! "${install[@]}"; then
    apt-get update
    "${install[@]}"
  fi
}

# Builds don't depend on the settings of the person or on a workspace above this folder.
go_clean() { env GOFLAGS= GOWORK=off CGO_ENABLED=0 go "$@"; }

go_install() {
  mkdir -p "$1.tmp"
  cd /
  GOBIN=$1.tmp go_clean install -trimpath -ldflags '-s -w' "$2"
  rm -rf "$1"
  mv "$1.tmp" "$1"
}

build_kubernetes() {
  local version_package=k8s.io/component-base/version major minor flags
  IFS=. read -r major minor _ <<<"${kubernetes_version#v}"
  flags="-s -w -X $version_package.gitVersion=$kubernetes_version"
  flags+=" -X $version_package.gitMajor=$major -X $version_package.gitMinor=$minor"
  mkdir -p "$kubernetes_bin.tmp"
  cd "$here/kubernetes"
  go_clean build -trimpath -buildvcs=false -ldflags "$flags" -o "$kubernetes_bin.tmp/kubernetes" .
  local component
  for component in "${components[@]}"; do ln -sf kubernetes "$kubernetes_bin.tmp/$component"; done
  rm -rf "$kubernetes_bin"
  mv "$kubernetes_bin.tmp" "$kubernetes_bin"
}

build_tools() {
  mkdir -p "$tools_bin.tmp" "$images_dir"
  cd "$here/tools"
  go_clean build -trimpath -buildvcs=false -ldflags '-s -w' -o "$tools_bin.tmp/" ./...
  rm -rf "$tools_bin"
  mv "$tools_bin.tmp" "$tools_bin"
}
