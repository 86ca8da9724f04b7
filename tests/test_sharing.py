"""How many trials share a GPU: --trials-per-gpu in plans and placements, and what auto chooses."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_search.errors import SearchError, SettingsError
from thermal_search.training.hardware import CONTEXT_BYTES, memory_fraction
from thermal_search.tuning import sharing
from thermal_search.tuning.budgets import Calibration, Speed
from thermal_search.tuning.nodes import NodeWait, required_bundles
from thermal_search.tuning.placement import place_alone, place_slots
from thermal_search.tuning.settings import MAX_TRIALS_PER_GPU, SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings
from thermal_search.tuning.sharing import (
    MEMORY_BESIDE_TRAINING,
    MOST,
    Sharing,
    as_many_as_gain,
    gain_of,
    most_that_fit,
    share_gpus,
)

GIB = 2**30
H100 = {"CPU": 32.0, "GPU": 1.0, "memory": 200.0 * GIB, "accelerator_type:H100": 1.0}


def plan_of(**values):
    common = {"data": Path("d"), "output": Path("o"), "architectures": ("pix2pix", "gan")}
    return plan_from_settings(SearchSettings(**common | values))


def calibration_of(device="NVIDIA H100", seconds=1e-12, **gibibytes):
    speeds = {
        name: Speed(
            seconds_per_operation=seconds,
            seconds_per_image=seconds * 1e10,
            memory_bytes=int(memory * GIB),
            batch_size=1,
        )
        for name, memory in gibibytes.items()
    }
    return Calibration(size=256, compute=0.0, device=device, speeds=speeds, failures={})


class TestPlan:
    @pytest.mark.parametrize(
        ("values", "sentence"),
        [
            ({"trials_per_gpu": 0}, "must be auto or a whole number from 1 to 48, but is 0."),
            ({"trials_per_gpu": 49}, "must be auto or a whole number from 1 to 48, but is 49."),
            ({"trials_per_gpu": 1.5}, "must be auto or a whole number from 1 to 48, but is 1.5."),
            ({"trials_per_gpu": "most"}, "must be auto or a whole number from 1 to 48, but is mo"),
            (
                {"trials_per_gpu": 2, "gpus_per_worker": 0.5},
                "must not come with --gpus-per-worker, which decides the same, but is 2.",
            ),
            ({"trials_per_gpu": 2, "workers": 2}, "must be 1 if several --workers train one trial"),
            ({"trials_per_gpu": "auto", "slots": 4}, "must be a number if --slots is given"),
        ],
    )
    def test_what_cannot_be_is_one_sentence(self, values, sentence):
        with pytest.raises(SettingsError, match=f"^--trials-per-gpu {sentence}"):
            plan_of(**values)

    def test_it_is_kept_and_changes_when_a_search_resumes(self, tmp_path):
        plan_of(output=tmp_path, trials_per_gpu=4).save()

        def resumed(**values):
            return plan_from_settings(SearchSettings(output=tmp_path, **values), resume=True)

        assert resumed().trials_per_gpu == 4
        assert resumed(trials_per_gpu="auto").trials_per_gpu == "auto"
        whole = resumed(gpus_per_worker=1.0)
        assert (whole.trials_per_gpu, whole.gpus_per_worker) == (None, 1.0)
        whole.replace(slots=3).save()
        shared = resumed(trials_per_gpu="auto")
        assert (shared.gpus_per_worker, shared.slots) == (None, None)
        shared.save()
        assert resumed(slots=2).trials_per_gpu is None


class TestPlacement:
    @given(trials=st.integers(1, MAX_TRIALS_PER_GPU), gpus=st.integers(1, 4))
    @settings(deadline=None)
    def test_each_gpu_has_so_many_slots_in_ray_s_count(self, trials, gpus):
        node = {"CPU": 16.0 * gpus, "GPU": float(gpus)}
        placement = place_slots(plan_of(trials_per_gpu=trials, trials=1000), [node])
        cpus, share = (placement.resources_per_worker[name] for name in ("CPU", "GPU"))

        assert placement.slots == gpus * trials
        assert placement.workers_per_gpu == trials
        # Ray counts in ten-thousandths.
        assert round(share * 10_000) * trials <= 10_000
        assert round(share * 10_000) / 10_000 == share
        assert cpus * placement.slots <= node["CPU"]
        assert placement.threads_per_worker <= max(cpus, 1)

    def test_eight_trials_of_a_small_machine_have_a_thread_each(self):
        placement = place_slots(plan_of(trials_per_gpu=8), [{"CPU": 4.0, "GPU": 1.0}])

        assert placement.resources_per_worker == {"CPU": 0.4, "GPU": 0.125}
        assert placement.threads_per_worker == 1

    def test_machines_are_requested_for_shares_and_whole_gpus(self):
        four = plan_of(trials_per_gpu=4, slots=8)

        assert required_bundles(four, [], NodeWait()) == [{"CPU": 1.0, "GPU": 0.25}] * 8
        with pytest.raises(SearchError, match=r"have 0 GPUs. Lower --slots, or leave --trials-per"):
            place_slots(four, [{"CPU": 4.0}])

    def test_what_is_trained_again_alone_has_whole_gpus(self):
        plan = plan_of(trials_per_gpu=4, slots=8)
        placement = place_alone(plan, 3, [H100, H100])

        assert placement.slots == 2
        assert (placement.resources_per_worker["GPU"], placement.gpu_share) == (1.0, 1.0)


class TestAuto:
    @pytest.mark.parametrize(
        ("memory", "device", "node", "trials", "why"),
        [
            (3.0, 80, H100, MOST, "more gain nothing"),
            (10.0, 80, H100, 4, "a trial needs up to 10.0 GiB at the published points, and a GPU"),
            (50.0, 80, H100, 1, "a trial needs up to 50.0 GiB"),
            (90.0, 80, H100, 1, "a trial needs up to 90.0 GiB"),
            (1.0, 80, H100 | {"CPU": 4.0}, 3, "each needs a CPU"),
            (1.0, 80, H100 | {"CPU": 1.0}, 1, "each needs a CPU"),
            (1.0, 80, H100 | {"memory": 16.0 * GIB}, 5, "each needs 3 GiB of the machine's memory"),
        ],
    )
    def test_the_first_limit_decides(self, memory, device, node, trials, why):
        alone = calibration_of(gan=0.5, pix2pix=memory)
        chosen = most_that_fit(plan_of(), alone, device * GIB, [{"CPU": 8.0}, node])

        assert chosen.trials == trials
        assert chosen.why.startswith(why)

    def test_no_more_slots_than_trials(self):
        chosen = most_that_fit(plan_of(trials=5), calibration_of(gan=1.0), 80 * GIB, [H100, H100])

        assert chosen == Sharing(3, "the search has no more trials")

    def test_a_gpu_that_only_ray_counts_is_not_shared(self):
        chosen = most_that_fit(plan_of(), calibration_of("CPU", gan=1.0), 80 * GIB, [H100])

        assert chosen.trials == 1

    @given(memory=st.floats(0.01, 200), device=st.floats(4, 200), cpus=st.integers(1, 256))
    @settings(deadline=None)
    def test_what_is_chosen_fits_the_share_that_it_has(self, memory, device, cpus):
        alone = calibration_of(gan=memory)
        node = {"CPU": float(cpus), "GPU": 1.0}
        trials = most_that_fit(plan_of(), alone, int(device * GIB), [node]).trials

        assert 1 <= trials <= MOST
        if trials > 1:
            share = place_slots(plan_of(trials_per_gpu=trials), [node]).gpu_share
            usable = memory_fraction(share, int(device * GIB)) * device * GIB
            assert memory * GIB <= usable - (MEMORY_BESIDE_TRAINING - CONTEXT_BYTES)

    @given(most=st.integers(2, MOST), gain=st.floats(0.1, 10))
    def test_no_more_trials_than_gain(self, most, gain):
        trials = as_many_as_gain(Sharing(most, "so many fit"), gain).trials

        assert 1 <= trials <= most
        assert (trials == 1) == (gain < sharing.LEAST_GAIN)
        assert trials >= min(most, gain) or trials == 1

    def test_gain_is_that_of_all_trials_together(self):
        alone = calibration_of(seconds=1e-12, gan=1.0, pix2pix=1.0)
        together = calibration_of(seconds=2e-12, gan=1.0)

        assert gain_of(alone, together, 8) == pytest.approx(4)

    @pytest.mark.parametrize(
        ("seconds_together", "slots", "factor", "sentence"),
        [
            (1e-12, 8, 1.0, "8 trials share each GPU: 8 train 8.0 times as many"),
            (4e-12, 3, 1.5, "3 trials share each GPU: 8 train 2.0 times as many images a second"),
            (8e-12, 1, 1.0, "Each trial has a GPU of its own: 8 train 1.0 times as many images"),
        ],
    )
    def test_it_measures_alone_and_then_as_many_as_fit(
        self, monkeypatch, seconds_together, slots, factor, sentence
    ):
        measured = []

        def calibrate(plan, size, placement, mps=None):
            measured.append((placement.workers_per_gpu, mps))
            seconds = 1e-12 if placement.workers_per_gpu == 1 else seconds_together
            calibration = calibration_of(seconds=seconds, gan=1.0)
            return calibration, int(80 * GIB * placement.gpu_share)

        monkeypatch.setattr(sharing, "calibrate", calibrate)
        monkeypatch.setattr(sharing, "present", lambda: [H100])
        plan = plan_of(trials_per_gpu="auto")
        with fake_gpus() as gpus:
            shared = share_gpus(plan, 256, place_slots(plan, [H100]), gpus, lambda text: None)

        assert measured == [(1, None), (8, "mps")]
        assert shared.placement.slots == slots
        assert shared.why.startswith(sentence)
        calibration, share_bytes = shared.measured
        seconds = seconds_together if slots == 8 else 1e-12 * factor
        assert calibration.speeds["gan"].seconds_per_operation == pytest.approx(seconds)
        assert share_bytes == pytest.approx(80 * GIB / slots, rel=1e-3)

    def test_machines_without_a_gpu_are_not_measured(self):
        plan = plan_of(trials_per_gpu="auto")
        with fake_gpus() as gpus:
            placement = place_slots(plan, [{"CPU": 8.0}])
            shared = share_gpus(plan, 256, placement, gpus, lambda text: None)

        assert shared.placement == placement
        assert shared.why == "No machine has a GPU, so no trials share one."


@contextmanager
def fake_gpus():
    class Gpus:
        keeper = None

        def use(self, placement):
            self.keeper = "mps" if placement.workers_per_gpu > 1 else None

    yield Gpus()


def test_benchmark_of_a_shared_gpu_runs_on_cpus():
    script = Path(__file__).parents[1] / "benchmarks" / "shared_gpu.py"
    flags = ["--size", "32", "--trials", "1", "2", "--seconds", "0.2"]
    flags += ["--settings", '{"generator_width": 8, "discriminator_width": 8}']
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}  # without NVIDIA's programs
    command = [sys.executable, script, *flags]
    text = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, timeout=300
    ).stdout

    assert re.search(r"one trial: [\d.]+ \(CPU", text)
    assert re.search(r"2 trials, in turns: [\d.]+ \([\d.]+ times one", text)
    assert "without MPS only: nvidia-cuda-mps-control is not installed" in text


@given(share=st.floats(0.02, 0.99), device=st.floats(2, 200))
def test_trials_of_a_gpu_and_their_contexts_fit_its_memory(share, device):
    fraction = memory_fraction(share, int(device * GIB))

    assert share / 2 <= fraction < share
    if share * device * GIB > 2 * CONTEXT_BYTES:
        assert fraction * device * GIB + CONTEXT_BYTES == pytest.approx(share * device * GIB)
