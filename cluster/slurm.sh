#!/bin/bash
# A search on the nodes of one Slurm job. Submit it in an activated environment, in a folder that all
# nodes see; every argument after the script is a flag of `thermal-search search`:
#   sbatch --nodes=4 --gpus-per-node=4 cluster/slurm.sh \
#       --data data/flir --output searches/first --slots 16 --gpus-per-worker 1
# cluster/README.md explains the rest.
#SBATCH --job-name=thermal-search
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
# Ray takes whole nodes: it uses all their cores, and its launcher ends every Ray process of yours.
#SBATCH --exclusive
# CHANGE: at most what your partition allows. What the job does not finish, the same command with
# --resume does.
#SBATCH --time=24:00:00
# Two minutes before that, the search is told to stop.
#SBATCH --signal=B:TERM@120
# A job that is preempted, or whose node fails, is queued again, and then resumes.
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# This script runs on the first node, which becomes the head. Its name may resolve to its loopback
# interface there; the others need the address that Ray finds.
head=$(python -c 'import ray; print(ray.util.get_node_ip_address())'):6379

# Only processes of this job may use its Ray cluster.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
# A folder of the job's own: /tmp/ray may belong to someone else.
RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID
export RAY_AUTH_TOKEN RAY_TMPDIR RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# Seconds until all nodes must have started Ray: Python loads slowly from a busy shared disk.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
ulimit -n "$(ulimit -H -n)"

on_every_node() {
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpu-bind=none "$@"
}

resume=()
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
    resume=(--resume)
fi

on_every_node mkdir -p "$RAY_TMPDIR"
trap 'on_every_node rm -rf "$RAY_TMPDIR"' EXIT
trap 'kill -TERM "$(cat "$RAY_TMPDIR/pid")"' TERM

# Runs on every node. Ray on the others has a file of its own for what it prints, and a second and a
# third try: it gives up on a node that takes half a minute to start, as it may from a busy disk.
# shellcheck disable=SC2016
launch='
ray=(ray symmetric-run --address "$0" --min-nodes "$SLURM_JOB_NUM_NODES" -- bash -c "$@")
if [ "$SLURM_NODEID" = 0 ]; then
    "${ray[@]}"
    exec test -e "$RAY_TMPDIR/exit-code"
fi
log=slurm-$SLURM_JOB_ID-node-$SLURM_NODEID.out
for _ in 1 2 3; do
    "${ray[@]}" &>>"$log"
    if grep -q "Ray runtime started" "$log"; then
        exit 0
    fi
done
exit 1'
# Runs on the head. The launcher may lose the exit code, and has none if Ray does not start.
# shellcheck disable=SC2016
search='
thermal-search search --address "$0" "$@" &
echo $! >"$RAY_TMPDIR/pid"
wait $!
echo $? >"$RAY_TMPDIR/exit-code"'

on_every_node --kill-on-bad-exit=1 bash -c "$launch" "$head" "$search" "$head" "$@" "${resume[@]}" &
launcher=$!
# A signal interrupts `wait`.
while kill -0 "$launcher" 2>/dev/null; do
    wait "$launcher" || true
done

if [ ! -e "$RAY_TMPDIR/exit-code" ]; then
    echo "Ray did not start, or ended before the search: the reason is above." >&2
    exit 1
fi
exit "$(cat "$RAY_TMPDIR/exit-code")"
