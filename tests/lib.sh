# shellcheck shell=bash
# What the demo and the test runner share. Sourced from the repository's root.

export CLUSTER_DIR=${CLUSTER_DIR:-$PWD/.cluster}
export PATH=$CLUSTER_DIR/bin:$CLUSTER_DIR/tools/bin:$PATH
cluster=tests/cluster/cluster
operator_namespace=annulus-system
# shellcheck disable=SC2034  # set by whoever sources this
step_number=0
steps_total=0

if [[ -t 1 ]]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi

say() { echo "  $*"; }

step() {
  step_number=$((step_number + 1))
  echo
  if ((steps_total > 0)); then
    echo "${bold}[$step_number/$steps_total] $*${plain}"
  else
    echo "${bold}$*${plain}"
  fi
}

now_ms() { date +%s%3N; }
seconds_since() { awk -v ms=$(($(now_ms) - $1)) 'BEGIN { printf "%.1f", ms / 1000 }'; }

require_rust() {
  command -v cargo >/dev/null || {
    echo "cargo is missing: install Rust 1.95 or newer (rustup.rs), then run this again" >&2
    exit 3
  }
  triple=$(rustc -vV | sed -n 's/^host: //p')
}

# A cluster of KUBECONFIG, or a machine that can run the development cluster.
can_run_cluster() {
  if [[ -n ${KUBECONFIG:-} ]] && kubectl --request-timeout=5s get --raw=/readyz >/dev/null 2>&1; then return 0; fi
  [[ $(uname -s) == Linux && $(id -u) == 0 ]] && command -v apt-get >/dev/null && command -v go >/dev/null
}

# Starts or finds the cluster and points kubectl and helm at it.
use_cluster() {
  KUBECONFIG=$("$cluster" ensure --nodes "${NODES:-1}")
  export KUBECONFIG
}

install_chart() {
  helm upgrade --install annulus charts/annulus --namespace "$operator_namespace" --create-namespace \
    --set "image.registry=${IMAGE_REGISTRY:-}" --wait --timeout 3m --hide-notes >/dev/null
  # The tag stays the same while the image is developed, so pods of an earlier build are replaced by hand.
  local built running
  built=$(sha256sum "target/$triple/release/annulus-operator" "target/$triple/release/annulus-node" | sha256sum | cut -c1-16)
  running=$(kubectl get --namespace "$operator_namespace" deployment annulus -o 'jsonpath={.spec.template.metadata.annotations.annulus\.dev/built}')
  if [[ $built != "$running" ]]; then
    kubectl patch --namespace "$operator_namespace" deployment annulus --type merge \
      --patch "{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"annulus.dev/built\":\"$built\"}}}}}" >/dev/null
  fi
  kubectl rollout status --namespace "$operator_namespace" deployment annulus --timeout 3m
}

# wait_ready NAMESPACE NAME NODES
wait_ready() {
  kubectl wait --namespace "$1" "cc/$2" --for "jsonpath={.status.readyNodes}=$3" --timeout 180s >/dev/null
  kubectl wait --namespace "$1" "cc/$2" --for condition=Ready --timeout 180s >/dev/null
}

# write_keys HOST COUNT and read_keys HOST COUNT: one redis-cli that follows the ring, its password in REDISCLI_AUTH.
write_keys() {
  local ok
  ok=$(seq "$2" | awk '{ print "SET key:" $1 " value-" $1 }' | redis-cli -c -h "$1" 2>&1 | grep -c '^OK$') || true
  say "$ok of $2 keys written"
  [[ $ok == "$2" ]]
}

read_keys() {
  local right
  right=$(seq "$2" | awk '{ print "GET key:" $1 }' | redis-cli -c -h "$1" 2>&1 | grep '^value-' | sort -u | wc -l) || true
  say "$right of $2 keys read back"
  [[ $right == "$2" ]]
}
