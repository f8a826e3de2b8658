"""When the monitor warns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import agileact as ag


class TestAlerts:
    def test_each_once_a_layer_and_with_the_remedy(self):
        model: Any = nn.Sequential(ag.AgileReLU(2), ag.AgileReLU(2))
        monitor = ag.Monitor(model, activations_every=None)
        for _ in range(3):
            with torch.no_grad():
                model[0].scale.fill_(1e4)
            monitor.step()
        with pytest.warns(
            ag.MonitorWarning, match=r"layer '0': the largest \|scale\| is 1e\+04 at step 1.*activation_lr"
        ):
            assert monitor.records
        monitor.step()
        assert monitor.records  # not again: warnings are errors here
        with torch.no_grad():
            model[1].location[0] = math.nan
        monitor.step()
        with pytest.warns(ag.MonitorWarning, match="layer '1': location is not finite at step 5.*clip gradients"):
            monitor.close()

    def test_explosion_is_measured_from_the_start(self):
        model = ag.AgileReLU(2)
        with torch.no_grad():
            model.scale.fill_(50.0)
        monitor = ag.Monitor(model, activations_every=None, explosion=10.0)
        with torch.no_grad():
            model.scale.fill_(400.0)
        monitor.step()
        assert monitor.records
        with torch.no_grad():
            model.scale.fill_(501.0)
        monitor.step()
        with pytest.warns(ag.MonitorWarning, match="from 50 at the start"):
            assert monitor.records

    def test_a_dead_layer(self):
        model = nn.Sequential(nn.Identity(), ag.AgileReLU(10))
        monitor = ag.Monitor(model, activations_every=1, window=2)
        x = -torch.ones(4, 10)
        x[:, 0] = 1.0
        model(x)
        monitor.step()
        model(x)
        with pytest.warns(ag.MonitorWarning, match=r"layer '1': 90 % of its units were never active.*calibrate"):
            monitor.step()
        model(x)
        monitor.step()

    def test_inputs_that_are_not_finite(self):
        model = ag.AgileReLU(2)
        monitor = ag.Monitor(model, activations_every=1)
        model(torch.full((3, 2), math.inf))
        with pytest.warns(ag.MonitorWarning, match="its input is not finite at step 0"):
            monitor.step()

    def test_none_if_not_wanted(self):
        model = ag.AgileReLU(2)
        monitor = ag.Monitor(model, activations_every=1, window=1, alerts=False)
        with torch.no_grad():
            model.scale.fill_(math.inf)
        model(-torch.ones(3, 2))
        monitor.step()
        assert monitor.records
