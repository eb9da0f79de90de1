#!/usr/bin/env bash
# A sweep as one SLURM job array, by submitit: 18 cells, a GPU each, four at a time.
# Run it on a login node, in tmux or screen, from the checkout, with the environment active:
#   bash docs/launch/slurm_sweep.sh
# The command waits and prints the table. If it ends first, the jobs go on; the same command again
# waits for none of them, runs what is missing and prints the table.
set -euo pipefail

python -m sdpo_exp -m hydra/launcher=submitit \
  hydra.launcher.slurm_partition="${PARTITION:-gpu}" \
  hydra.launcher.timeout_min=1440 \
  hydra.launcher.cpus_per_task=8 \
  hydra.launcher.gpus_per_node=1 \
  hydra.launcher.mem_gb=64 \
  hydra.launcher.n_jobs=4 \
  name=slurm_sweep model=sd15 tuning=lora lr=1e-5 \
  objective=dpo,dspo,dmpo safeguard=true,false seed=0,1,2
