# shellcheck shell=bash
# The control plane: processes on the host, listening on loopback and on the machines' network only.

kubectl() { env -u HTTPS_PROXY -u https_proxy KUBECONFIG="$own_kubeconfig" "$kubernetes_bin/kubectl" "$@"; }

api_is_ready() { [[ $(kubectl get --request-timeout=2s --raw=/readyz) == ok ]]; }

# make_certificates NODE...: those that are missing.
make_certificates() {
  local node nodes=()
  for node in "$@"; do nodes+=("$node=$(node_address "$node")"); done
  "$tools_bin/certs" -dir "$pki_dir" -api-address "$api_address" -api-port "$api_port" \
    -service-address "$kubernetes_service" -nodes "$(IFS=, && echo "${nodes[*]}")"
}

start_control_plane() {
  start_etcd
  start_api_server
  (umask 077 && cp "$pki_dir/admin.kubeconfig" "$own_kubeconfig")
  start_controllers
  wait_for 60 "answer of the API server" kube-apiserver api_is_ready
  kubectl apply --filename "$here/config/network-policies.yaml"
}

start_etcd() {
  # Nothing here has to survive a power cut, so etcd needn't wait for the disk.
  spawn etcd "$kubernetes_bin/etcd" \
    --name=dev --data-dir="$state_dir/etcd" --unsafe-no-fsync --logger=zap --log-level=warn \
    --listen-client-urls="https://127.0.0.1:$etcd_client_port" \
    --advertise-client-urls="https://127.0.0.1:$etcd_client_port" \
    --listen-peer-urls="http://127.0.0.1:$etcd_peer_port" \
    --initial-advertise-peer-urls="http://127.0.0.1:$etcd_peer_port" \
    --initial-cluster="dev=http://127.0.0.1:$etcd_peer_port" \
    --client-cert-auth --trusted-ca-file="$pki_dir/etcd-ca.crt" \
    --cert-file="$pki_dir/etcd.crt" --key-file="$pki_dir/etcd.key"
}

start_api_server() {
  # Aggregator routing reaches webhooks by pod address: the host has no kube-proxy to resolve Services.
  spawn kube-apiserver "$kubernetes_bin/kube-apiserver" \
    --bind-address="$api_address" --advertise-address="$api_address" --secure-port="$api_port" \
    --service-cluster-ip-range="$service_network" --allow-privileged=true \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --enable-aggregator-routing=true --kubelet-preferred-address-types=InternalIP \
    --etcd-servers="https://127.0.0.1:$etcd_client_port" --etcd-cafile="$pki_dir/etcd-ca.crt" \
    --etcd-certfile="$pki_dir/etcd-client.crt" --etcd-keyfile="$pki_dir/etcd-client.key" \
    --client-ca-file="$pki_dir/ca.crt" \
    --tls-cert-file="$pki_dir/kube-apiserver.crt" --tls-private-key-file="$pki_dir/kube-apiserver.key" \
    --kubelet-certificate-authority="$pki_dir/ca.crt" \
    --kubelet-client-certificate="$pki_dir/kubelet-client.crt" --kubelet-client-key="$pki_dir/kubelet-client.key" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-signing-key-file="$pki_dir/service-account.key" \
    --service-account-key-file="$pki_dir/service-account.pub" \
    --requestheader-client-ca-file="$pki_dir/front-proxy-ca.crt" \
    --requestheader-allowed-names=front-proxy-client --requestheader-username-headers=X-Remote-User \
    --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$pki_dir/front-proxy.crt" --proxy-client-key-file="$pki_dir/front-proxy.key" \
    --audit-policy-file="$here/config/audit-policy.yaml" --audit-log-path="$logs_dir/audit.log" \
    --audit-log-maxsize=100 --audit-log-maxbackup=2
}

start_controllers() {
  # There is only one of each, so an election would only be idle writes.
  local common=(--leader-elect=false --bind-address=127.0.0.1)
  spawn kube-controller-manager "$kubernetes_bin/kube-controller-manager" "${common[@]}" \
    --kubeconfig="$pki_dir/kube-controller-manager.kubeconfig" \
    --authentication-kubeconfig="$pki_dir/kube-controller-manager.kubeconfig" \
    --authorization-kubeconfig="$pki_dir/kube-controller-manager.kubeconfig" \
    --requestheader-client-ca-file="$pki_dir/front-proxy-ca.crt" \
    --use-service-account-credentials=true --root-ca-file="$pki_dir/ca.crt" \
    --service-account-private-key-file="$pki_dir/service-account.key" \
    --cluster-signing-cert-file="$pki_dir/ca.crt" --cluster-signing-key-file="$pki_dir/ca.key"
  spawn kube-scheduler "$kubernetes_bin/kube-scheduler" "${common[@]}" \
    --kubeconfig="$pki_dir/kube-scheduler.kubeconfig" \
    --authentication-kubeconfig="$pki_dir/kube-scheduler.kubeconfig" \
    --authorization-kubeconfig="$pki_dir/kube-scheduler.kubeconfig"
}
