# shellcheck shell=bash
# Whether this machine can run the cluster at all; if not, what to do instead.

own_cluster_hint="use a cluster of your own: set KUBECONFIG to its file (kind, minikube, k3s and so on)"

require_machine() {
  [[ $(uname -s) == Linux ]] || cannot_run "it needs Linux, this is $(uname -s)" "$own_cluster_hint"
  ((EUID == 0)) || cannot_run "it needs root (namespaces, cgroups, mounts)" \
    "run the same command as root, or $own_cluster_hint"
  unshare --net --pid --mount --fork true 2>/dev/null || cannot_run \
    "this root may not make namespaces (an unprivileged container?)" "use a virtual machine, or $own_cluster_hint"
  [[ -w /sys/fs/cgroup ]] || cannot_run "/sys/fs/cgroup can't be written to" "$own_cluster_hint"
}

# The Go command has to be there: Kubernetes, CoreDNS and Helm are built from their modules.
require_go() {
  local version
  command -v go >/dev/null || cannot_run "the go command is missing" \
    "install Go $go_minimum or newer and put it in PATH (Debian 12's own is too old), or $own_cluster_hint"
  version=$(go env GOVERSION)
  version=${version#go}
  [[ $(printf '%s\n' "$go_minimum" "$version" | sort -V | head -n 1) == "$go_minimum" ]] || cannot_run \
    "Go $version is too old" "install Go $go_minimum or newer, or $own_cluster_hint"
}

# What has to be there, and the Debian package that brings it.
machine_needs() {
  cat <<'NEEDS'
containerd containerd
ctr containerd
runc runc
/usr/lib/cni/bridge containernetworking-plugins
conntrack conntrack
iptables iptables
ipset ipset
ethtool ethtool
socat socat
ip iproute2
nsenter util-linux
flock util-linux
mount mount
curl curl
redis-cli redis-tools
redis-benchmark redis-tools
NEEDS
}

missing_packages() {
  local need package
  while read -r need package; do
    command -v "$need" >/dev/null || echo "$package"
  done < <(machine_needs) | sort -u
}
