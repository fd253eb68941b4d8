# shellcheck shell=bash
# The machines' network: a bridge that the host and all nodes are plugged into.
#
#   host, annulus0 10.245.0.1 ── bridge ┬─ node-1, eth0 10.245.0.11 ── cni0 10.244.1.1 ── its pods
#                                       └─ node-2, eth0 10.245.0.12 ── cni0 10.244.2.1 ── its pods
#
# The bridge has a network namespace to itself, "switch". So the host's firewall never sees traffic
# between nodes, the host needs no forwarding and no rules, and all links vanish with the namespaces.

# start_sandbox NAME: process 1 of a new network, PID and mount namespace. They end with it.
start_sandbox() {
  spawn "$1" unshare --net --pid --mount --fork --kill-child --mount-proc "$tools_bin/pause"
  wait_for 5 "namespaces of $1" "$1" sandbox_pid "$1"
}

# The process in the namespaces is the child of the one that made them.
sandbox_pid() {
  local pid child
  pid=$(pid_of "$1") && child=$(<"/proc/$pid/task/$pid/children") && [[ -n $child ]] && echo "${child%% *}"
}

in_network() { nsenter --target "$(sandbox_pid "$1")" --net -- "${@:2}"; }
in_node() { nsenter --target "$(sandbox_pid "$1")" --net --mount --pid --wd=/ -- "${@:2}"; }

# Nodes that were set up, in order.
running_nodes() {
  local file
  for file in "$pids_dir"/node-*.kubelet; do
    [[ -e $file ]] && basename "$file" .kubelet
  done | sort -V
}

refuse_if_addresses_taken() {
  local network taken
  for network in "$machine_network" "$pod_network" "$service_network"; do
    taken=$(ip -4 route show root "$network")
    [[ -z $taken ]] || fail "this machine already routes $network, which the cluster needs: $taken"
  done
}

# plug NODE up|down: at the switch, because a link that is set down in the node loses its routes.
plug() { in_network switch ip link set "$1" "$2"; }

start_network() {
  start_sandbox switch
  in_network switch ip link add name bridge up type bridge
  ip link add name "$host_link" type veth peer name host netns "$(sandbox_pid switch)"
  in_network switch ip link set host up master bridge
  ip address add "$api_address/24" dev "$host_link"
  ip link set "$host_link" up
}

# Plugs a node's namespace in, and tells everybody where its pods are.
connect_node() {
  local node=$1 other
  in_network switch ip link add name "$node" up master bridge type veth peer name eth0 netns "$(sandbox_pid "$node")"
  in_network "$node" ip link set lo up
  in_network "$node" ip address add "$(node_address "$node")/24" dev eth0
  in_network "$node" ip link set eth0 up
  in_network "$node" ip route add default via "$api_address"
  in_network "$node" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
  ip route replace "$(node_pods "$node")" via "$(node_address "$node")" dev "$host_link"
  # The host runs no kube-proxy: Services are reached through the first node's.
  [[ $node != node-1 ]] || ip route replace "$service_network" via "$(node_address "$node")" dev "$host_link"
  for other in $(running_nodes); do
    [[ $other != "$node" ]] || continue
    in_network "$other" ip route replace "$(node_pods "$node")" via "$(node_address "$node")"
    in_network "$node" ip route replace "$(node_pods "$other")" via "$(node_address "$other")"
  done
}
