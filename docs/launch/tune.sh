#!/usr/bin/env bash
# Search beta, mu and the learning rate on the embedded world: 40 trials, two at a time.
#   bash docs/launch/tune.sh
# Interrupted, or for more trials: the same command again, with a larger n_trials.
set -euo pipefail

python -m sdpo_exp -m hydra/sweeper=optuna hydra/launcher=joblib hydra.launcher.n_jobs=2 \
  hydra.sweeper.n_trials="${TRIALS:-40}" hydra.sweeper.metric=eval/reward_change \
  name=tuned objective=dpo \
  'recipe.beta=tag(log,interval(20,2000))' \
  'safeguard.mu=interval(0.1,1)' \
  'lr=tag(log,interval(1e-5,1e-3))'
