#!/usr/bin/env bash
# SDXL with DMPO and the safeguard, as published, on the eight GPUs of this machine.
#   bash docs/launch/torchrun_8gpu.sh outputs/sdxl_dmpo            begin
#   bash docs/launch/torchrun_8gpu.sh outputs/sdxl_dmpo_2 resume=outputs/sdxl_dmpo     go on with it
# run_dir is given, so that all eight processes mean the same folder whatever their clocks say.
set -euo pipefail

run_dir=${1:?give the folder of the run}
export OMP_NUM_THREADS=8

torchrun --standalone --nproc_per_node 8 -m sdpo_exp \
  model=sdxl objective=dmpo safeguard=true \
  trainer.devices=8 trainer.strategy=ddp run_dir="$run_dir" "${@:2}"
