# shellcheck shell=bash
# Versions, names, addresses and paths: everything that the other files have to agree on.
# shellcheck disable=SC2034  # used by the files that source this one

repository=$(realpath "$here/../..")
cluster_dir=$(realpath -m "${CLUSTER_DIR:-$repository/.cluster}")

# Kubernetes' version is stated once, in the module that builds it.
kubernetes_version=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$here/kubernetes/go.mod")
coredns_version=v1.12.4
helm_version=v3.20.2
go_minimum=1.24

# Names of what lives outside our folder. They all say whose they are.
project=annulus-dev-cluster
host_link=annulus0

# The host keeps .1 of the machines' network; node-N is .10+N there and owns 10.244.N.0/24.
machine_network=10.245.0.0/24
machine_prefix=10.245.0
api_address=$machine_prefix.1
api_port=6443
pod_network=10.244.0.0/16
pod_prefix=10.244
service_network=10.96.0.0/16
kubernetes_service=10.96.0.1
dns_service=10.96.0.10
# Off the beaten track: an etcd of the machine's own may hold the usual ports.
etcd_client_port=12379
etcd_peer_port=12380
nodes_max=50

# Outlives the clone (so that a deleted one can still be cleaned up after), but not a reboot.
run_dir=/run/$project
lock_file=/run/$project.lock
owner_file=$run_dir/owner
pids_dir=$run_dir/pids
saved_sysctls=$run_dir/sysctls
saved_chains=$run_dir/chains
complete_file=$run_dir/complete

bin_dir=$cluster_dir/bin
logs_dir=$cluster_dir/logs
images_dir=$cluster_dir/images
# Deleted as a whole by `down`, so its name must not be one that a person might have given.
state_dir=$cluster_dir/$project
pki_dir=$state_dir/pki
loaded_dir=$state_dir/images
own_kubeconfig=$cluster_dir/kubeconfig

# A change of the sources makes another folder, so nothing stale is ever run.
sources_id() {
  (cd "$1" && find . -type f \( -name '*.go' -o -name 'go.*' \) -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)
}
kubernetes_bin=$bin_dir/kubernetes-$kubernetes_version-$(sources_id "$here/kubernetes")
tools_bin=$bin_dir/tools-$(sources_id "$here/tools")
coredns_bin=$bin_dir/coredns-$coredns_version
helm_bin=$bin_dir/helm-$helm_version
components=(etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl network-policies)

# containerd.toml and manifests/ refer to these by name.
pause_image=annulus-dev/pause:1
coredns_image=annulus-dev/coredns:$coredns_version
echo_image=annulus-dev/echo:1

node_address() { echo "$machine_prefix.$((10 + ${1#node-}))"; }
node_pods() { echo "$pod_prefix.${1#node-}.0/24"; }
node_zone() {
  local zones=(zone-a zone-b zone-c)
  echo "${zones[$(((${1#node-} - 1) % 3))]}"
}
node_names() {
  local n
  for ((n = 1; n <= $1; n++)); do echo "node-$n"; done
}
