"""The limit on a worker's threads: what it changes, what it leaves alone, and that it is undone."""

from __future__ import annotations

import os

import torch

from pytest_hfaccel.core.threads import SharedCores, torch_threads


def test_runtimes_get_a_share_and_it_is_given_back() -> None:
    before = torch.get_num_threads()
    environ = {"MKL_NUM_THREADS": "7", "OMP_NUM_THREADS": "", "PATH": os.environ["PATH"]}
    cores = SharedCores(3, environ)
    cores.apply()
    try:
        assert cores.is_applied
        assert torch.get_num_threads() == 3
        assert environ["OMP_NUM_THREADS"] == environ["RAYON_NUM_THREADS"] == environ["OPENBLAS_NUM_THREADS"] == "3"
        assert environ["MKL_NUM_THREADS"] == "7"  # the user's
        assert cores.serial_threads() == before
        with torch_threads(5):
            assert torch.get_num_threads() == 5
        assert torch.get_num_threads() == 3
    finally:
        cores.undo()
    assert torch.get_num_threads() == before
    assert environ == {"MKL_NUM_THREADS": "7", "OMP_NUM_THREADS": "", "PATH": os.environ["PATH"]}


def test_what_the_user_has_set_stays() -> None:
    before = torch.get_num_threads()
    environ = {"OMP_NUM_THREADS": "2"}
    cores = SharedCores(9, environ)
    cores.apply()
    assert not cores.is_applied
    assert environ == {"OMP_NUM_THREADS": "2"}
    assert torch.get_num_threads() == before
