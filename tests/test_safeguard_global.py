"""The `global` scope over two processes on the loopback interface."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from sdpo_exp.safeguard import preserve_winner
from sdpo_exp.types import PairErrors
from tests.factories import make_errors, make_predictions

MU = 0.4
SPLIT = (2, 3)  # pairs of each rank: uneven, and so is what they hold
WEIGHTS = (torch.tensor([1.0, 5.0, 0.1, 2.0, 0.5]), torch.tensor([0.3, 1.0, 4.0, 1.0, 2.0]))


def whole_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pred, ref, target = make_predictions(pairs=sum(SPLIT), seed=3)
    pred[:2] += 0.4  # rank 0's pairs are further off than rank 1's, and better aligned
    pred[5:7] += 1.0
    return pred, ref, target


def errors_of_rank(rank: int) -> tuple[PairErrors, slice]:
    rows = slice(sum(SPLIT[:rank]), sum(SPLIT[: rank + 1]))
    halves = [tensor.chunk(2) for tensor in whole_batch()]
    return PairErrors.from_predictions(*[torch.cat([w[rows], x[rows]]) for w, x in halves]), rows


def run_rank(rank: int, folder: str) -> None:
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    os.environ["GLOO_SOCKET_IFNAME"] = loopback[0]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    alone = [dist.new_group([member]) for member in range(2)]
    errors, rows = errors_of_rank(rank)
    errors_out, plain = preserve_winner(errors, MU, "global")
    results = {
        "global": plain,
        "weighted": preserve_winner(
            errors, MU, "global", weights=tuple(weight[rows] for weight in WEIGHTS)
        )[1],
        "own group": preserve_winner(errors, MU, "global", process_group=alone[rank])[1],
        "microbatch": preserve_winner(errors, MU)[1],
        "loser": errors_out.loser,
    }
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    start_processes(run_rank, (str(folder),), nprocs=2, start_method="fork")
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def test_global_is_the_microbatch_lambda_of_the_concatenated_batch(ranks):
    _, expected = preserve_winner(PairErrors.from_predictions(*whole_batch()), MU)
    assert 0 < expected[0] < 1
    assert torch.equal(ranks[0]["global"], ranks[0]["global"][:1].expand(2))
    assert ranks[0]["global"][0] == ranks[1]["global"][0]
    together = torch.cat([result["global"] for result in ranks])
    torch.testing.assert_close(together, expected, rtol=1e-6, atol=0)


def test_the_ranks_alone_would_have_disagreed(ranks):
    _, expected = preserve_winner(PairErrors.from_predictions(*whole_batch()), MU)
    for result in ranks:
        assert abs(result["microbatch"][0] - expected[0]) > 0.02


def test_weights_enter_the_global_sums(ranks):
    errors = PairErrors.from_predictions(*whole_batch())
    _, expected = preserve_winner(errors, MU, weights=WEIGHTS)
    assert abs(expected[0] - preserve_winner(errors, MU)[1][0]) > 0.02
    together = torch.cat([result["weighted"] for result in ranks])
    torch.testing.assert_close(together, expected, rtol=1e-6, atol=0)


def test_a_process_group_limits_the_sums(ranks):
    for result in ranks:
        torch.testing.assert_close(result["own group"], result["microbatch"], rtol=1e-6, atol=0)


def test_forward_values_stay_those_of_the_rank(ranks):
    for rank, result in enumerate(ranks):
        assert torch.equal(result["loser"], errors_of_rank(rank)[0].loser)


def test_a_single_process_falls_back_to_the_microbatch():
    assert not dist.is_initialized()
    _, errors = make_errors(seed=1)
    assert torch.equal(preserve_winner(errors, MU, "global")[1], preserve_winner(errors, MU)[1])
