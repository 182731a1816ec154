#!/usr/bin/env bash
# Evaluate with several processes: bash ./dist_test.sh CONFIG [arguments of eval.py]
# GPUS (default: those visible, 1 without any), NNODES, NODE_RANK, MASTER_ADDR, PORT (default: a free one) as variables.
set -euo pipefail

fail() {
    echo "error: $1" >&2
    exit 2
}
number() { # NAME LEAST
    [[ ${!1} =~ ^[0-9]{1,9}$ && ${!1} -ge $2 ]] || fail "$1 must be a whole number of at least $2, not '${!1}'"
}

[ $# -ge 1 ] || fail "no config given; use: bash dist_test.sh config/cfg_voc21.py [arguments of eval.py]"
CONFIG=$1
case $CONFIG in # the configs beside this script are found from anywhere, as eval.py finds them
cfg_*.py | config/cfg_*.py) [ -f "$CONFIG" ] || CONFIG=$(dirname "$0")/config/${CONFIG#config/} ;;
esac
[ -f "$CONFIG" ] || fail "config $1 does not exist; the configs are in config/ (cfg_voc21.py, …)"
shift
PYTHON=${PYTHON:-python}
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
GPUS=${GPUS:-$("$PYTHON" -c 'import torch; print(max(1, torch.cuda.device_count()))')}
number NNODES 1
number NODE_RANK 0
number GPUS 1
[ "$NODE_RANK" -lt "$NNODES" ] || fail "NODE_RANK=$NODE_RANK, but NNODES=$NNODES counts them from 0"
[ "$NNODES" -eq 1 ] || [ -n "${MASTER_ADDR:-}" ] && [ "$NNODES" -eq 1 -o -n "${PORT:-}" ] ||
    fail "NNODES=$NNODES needs MASTER_ADDR, the first node's address, and PORT, the same on every node"
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
PORT=${PORT:-$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')}
number PORT 1
[ "$PORT" -le 65535 ] || fail "PORT must be at most 65535, not $PORT"

# The package has imported this module before it runs, which does no harm here.
exec "$PYTHON" -W ignore::RuntimeWarning:runpy -m clearclip.evaluation.processes \
    --nnodes="$NNODES" --node_rank="$NODE_RANK" --master_addr="$MASTER_ADDR" --master_port="$PORT" \
    --nproc_per_node="$GPUS" "$(dirname "$0")/eval.py" --config "$CONFIG" --launcher pytorch "$@"
