#!/usr/bin/env bash
# Evaluate with several processes: bash ./dist_test.sh CONFIG [arguments of eval.py]
# bash ./dist_test.sh --help tells the variables.
set -euo pipefail

fail() {
    echo "error: $1" >&2
    exit 2
}
number() { # NAME LEAST
    [[ ${!1} =~ ^[0-9]{1,9}$ && ${!1} -ge $2 ]] || fail "$1 must be a whole number of at least $2, not '${!1}'"
}

help() {
    cat <<END
usage: [GPUS=N] bash dist_test.sh CONFIG [arguments of eval.py]

Evaluates with several processes, one per GPU (without a GPU: on the CPU). Variables:
  GPUS          processes on this host (default: the GPUs that are visible, 1 without any)
  NNODES        hosts (default 1); each of them runs the same command with
  NODE_RANK     its number, from 0
  MASTER_ADDR   the first host's address
  PORT          a free port of the first host, the same on all (one host alone takes any that is free)
  PYTHON        the interpreter (default: python)

Ctrl-C and what else ends it leave what is finished; add --resume to go on. The arguments of eval.py:
END
    exec "${PYTHON:-python}" "$(dirname "$0")/eval.py" --help
}
case ${1:-} in -h | --help) help ;; esac

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

# On one host torchrun takes a free port itself, so that several runs may start at the same moment.
MEETING=(--rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:0 --local-addr=127.0.0.1)
if [ -n "${PORT:-}" ]; then
    number PORT 1
    [ "$PORT" -le 65535 ] || fail "PORT must be at most 65535, not $PORT"
    MEETING=(--node_rank="$NODE_RANK" --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="$PORT")
fi

exec "$PYTHON" -m clearclip.commands.torchrun --nnodes="$NNODES" --nproc_per_node="$GPUS" "${MEETING[@]}" \
    "$(dirname "$0")/eval.py" --config "$CONFIG" --launcher pytorch "$@"
