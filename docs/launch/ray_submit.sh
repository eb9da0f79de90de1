#!/usr/bin/env bash
# Start the cluster of ray_cluster.yaml, run a sweep on it with a GPU for each cell, and stop it.
# From the checkout, on a machine that reaches the cluster's by ssh:
#   bash docs/launch/ray_submit.sh
set -euo pipefail

checkout=${CHECKOUT:-/shared/sdpo_exp}
ray up --yes docs/launch/ray_cluster.yaml
ray exec docs/launch/ray_cluster.yaml "cd $checkout && .venv/bin/python -m sdpo_exp -m \
  hydra/launcher=ray hydra.launcher.address=auto \
  hydra.launcher.gpus_per_cell=1 hydra.launcher.cpus_per_cell=8 \
  name=ray_sweep model=sd15 tuning=lora lr=1e-5 \
  objective=dpo,dspo,dmpo safeguard=true,false seed=0,1,2"
ray down --yes docs/launch/ray_cluster.yaml
