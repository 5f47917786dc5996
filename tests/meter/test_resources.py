"""Check the ledger of a run's costs, which goes on from the record of an interrupted call."""

import torch

from hfftools.meter.resources import Ledger


def test_minutes_of_training_are_those_of_all_calls():
    ledger = Ledger(torch.device("cpu"), {"train_seconds": 90.0})
    ledger.add(4.0, 20.0)
    ledger.add(4.0, 10.0)
    assert ledger.train_minutes == 2.0
