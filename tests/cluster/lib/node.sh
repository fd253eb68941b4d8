# shellcheck shell=bash
# A worker node: a network, PID and mount namespace, and in it containerd, a kubelet, kube-proxy and who enforces
# NetworkPolicies.
#
# In its mount namespace /run and /var are the node's own, so that everything keeps its usual path
# and no mount, socket or file of a node is ever seen on the host. When process 1 of the PID
# namespace ends, the kernel ends the rest of the node.

start_node() {
  local node=$1 folder=$state_dir/nodes/$1
  mkdir -p "$folder"/{run,var/lib,var/log,var/tmp,cni}
  ln -sfn /run "$folder/var/run"
  cp "$pki_dir/ca.crt" "$pki_dir/kube-proxy.kubeconfig" "$here/config/kubelet.yaml" "$folder/"
  cp "$pki_dir/kubelet-$node-serving.crt" "$folder/serving.crt"
  cp "$pki_dir/kubelet-$node-serving.key" "$folder/serving.key"
  cp "$pki_dir/kubelet-$node.kubeconfig" "$folder/kubelet.kubeconfig"
  sed "s/@SNAPSHOTTER@/$(snapshotter)/" "$here/config/containerd.toml" >"$folder/containerd.toml"
  echo '# Pods that ask for the node'\''s DNS get none: there is nothing outside the cluster.' >"$folder/resolv.conf"
  write_cni_config "$node" >"$folder/cni/10-bridge.conflist"

  create_cgroup "$project/$node"
  start_sandbox "$node"
  mount_node_folders "$node"
  connect_node "$node"
  spawn_in_node "$node" containerd containerd --config /run/node/containerd.toml
  wait_for 20 "socket of containerd" "$node.containerd" in_node "$node" test -S /run/containerd/containerd.sock
  import_loaded_images "$node"
  spawn_in_node "$node" kubelet /run/kubernetes/kubelet --config=/run/node/kubelet.yaml \
    --kubeconfig=/run/node/kubelet.kubeconfig --hostname-override="$node" --node-ip="$(node_address "$node")" \
    --node-labels="topology.kubernetes.io/region=dev,topology.kubernetes.io/zone=$(node_zone "$node")" \
    --cgroup-root="/$project/$node"
  spawn_in_node "$node" kube-proxy /run/kubernetes/kube-proxy \
    --kubeconfig=/run/node/kube-proxy.kubeconfig --hostname-override="$node" --cluster-cidr="$pod_network" \
    --proxy-mode=iptables --conntrack-max-per-core=0 --oom-score-adj=0
  spawn_in_node "$node" network-policies /run/kubernetes/network-policies \
    --kubeconfig=/run/node/kube-proxy.kubeconfig --node="$node" --machines="$machine_network"
}

spawn_in_node() {
  spawn "$1.$2" nsenter --target "$(sandbox_pid "$1")" --net --mount --pid --wd=/ -- "${@:3}"
}

mount_node_folders() {
  local folder=$state_dir/nodes/$1
  # Sources are found by their place on the host, so they are gathered below the new /run before it
  # covers the old one: the clone may itself lie below /run or /var.
  nsenter --target "$(sandbox_pid "$1")" --mount --wd=/ -- sh -euc '
    mount -t tmpfs -o mode=755 tmpfs "$1/run"
    mkdir "$1/run/node" "$1/run/kubernetes" "$1/run/lock"
    mount --bind "$1" "$1/run/node"
    mount --bind "$2" "$1/run/kubernetes"
    mount --rbind "$1/run" /run
    mount --bind /run/node/var /var
    # Volumes may ask for mounts to be passed on, which a private root refuses.
    mount --make-rshared /
  ' sh "$folder" "$kubernetes_bin"
}

write_cni_config() {
  cat <<CONFIG
{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isDefaultGateway": true,
      "hairpinMode": true,
      "ipMasq": false,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "$(node_pods "$1")"}]]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
CONFIG
}
