#!/usr/bin/env bash
# Evaluate with several processes: bash ./dist_test.sh CONFIG [arguments of eval.py]
# GPUS (default: those visible, 1 without any), NNODES, NODE_RANK, MASTER_ADDR, PORT (default: a free one) as variables.
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "error: no config given; use: bash dist_test.sh config/cfg_voc21.py [arguments of eval.py]" >&2
    exit 2
fi
CONFIG=$1
shift
PYTHON=${PYTHON:-python}
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
GPUS=${GPUS:-$("$PYTHON" -c 'import torch; print(max(1, torch.cuda.device_count()))')}
if [ "$NNODES" -gt 1 ] && [ -z "${PORT:-}" ]; then
    echo "error: NNODES=$NNODES needs PORT, the same on every node" >&2
    exit 2
fi
PORT=${PORT:-$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')}

exec "$PYTHON" -m clearclip.evaluation.launch \
    --nnodes="$NNODES" --node_rank="$NODE_RANK" --master_addr="$MASTER_ADDR" --master_port="$PORT" \
    --nproc_per_node="$GPUS" "$(dirname "$0")/eval.py" --config "$CONFIG" --launcher pytorch "$@"
