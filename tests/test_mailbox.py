"""The mailbox between a slot and its workers, called as Ray calls it but without a cluster."""

import asyncio
import dataclasses

import pytest

from thermal_search.storage import Location
from thermal_search.training.trial_plan import TrialPlan
from thermal_search.tuning.slots.mailbox import ATTEMPTS_PER_TRIAL, STARTS_PER_SLOT, Mailbox
from thermal_search.tuning.slots.messages import SlotFailure, StartFailure, TrialConfig, TrialReport

SOON_S = 5.0
RUNNING = TrialReport(status="running")


def run(scenario):
    """Runs `scenario(mailbox)`, with a trial that a worker group has taken."""

    async def with_trial():
        mailbox = Mailbox.__ray_metadata__.modified_class()
        plan = TrialPlan(
            id="trial",
            architecture="wgan",
            parameters={},
            folder=Location("trials/trial"),
            images=8,
            evaluate_every=4,
        )
        await mailbox.submit("trial", plan)
        assert await mailbox.take(SOON_S) == plan
        await asyncio.wait_for(scenario(mailbox), SOON_S)

    asyncio.run(with_trial())


async def waiting(call):
    """A call that does not return yet."""
    task = asyncio.create_task(call)
    await asyncio.sleep(0.01)
    assert not task.done()
    return task


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_workers_that_wait_for_an_answer_leave_at_once(how):
    async def scenario(mailbox):
        first = mailbox.next_report("trial")
        report = await waiting(mailbox.report("trial", 0, RUNNING))
        assert await first == RUNNING
        await (mailbox.close() if how == "close" else mailbox.cancel("trial"))

        assert await report  # stop
        await mailbox.end("trial", None)
        await mailbox.close()
        assert await mailbox.take(SOON_S) is None

    run(scenario)


def test_workers_that_wait_for_a_trial_leave_at_once():
    async def scenario(mailbox):
        await mailbox.end("trial", None)
        take = await waiting(mailbox.take(SOON_S))

        assert not await mailbox.close()  # the search does not stop before its end
        assert await take is None

    run(scenario)


def test_slot_does_not_wait_for_the_next_evaluation_of_a_search_that_stops():
    async def scenario(mailbox):
        report = await waiting(mailbox.next_report("trial"))
        await mailbox.stop()

        assert await report is None
        assert await mailbox.next_report("trial") is None
        assert await mailbox.close()

    run(scenario)


def test_trial_whose_workers_are_killed_again_and_again_is_interrupted():
    """As by Ray's memory monitor: it is the machine's fault, and `--resume` tries it again."""

    async def scenario(mailbox):
        report = await waiting(mailbox.next_report("trial"))
        for _ in range(ATTEMPTS_PER_TRIAL - 1):
            assert (await mailbox.take(SOON_S)).id == "trial"
        assert await mailbox.take(0.01) == "idle"

        last = await report
        assert last.status == "interrupted"
        assert "memory" in last.reason
        assert last.is_last

    run(scenario)


def test_first_group_that_cannot_start_is_reported_at_once():
    """Without counting as a report: the workers still wait for the answer to their first one."""

    async def scenario(mailbox):
        first = await waiting(mailbox.next_report("trial"))
        for reason in ("no such weights", "the same on another worker"):
            assert await mailbox.start()
            await mailbox.start_failed(reason)
        assert await first == StartFailure("no such weights")
        second = await waiting(mailbox.next_report("trial"))
        assert await mailbox.start()
        await mailbox.ready()
        report = await waiting(mailbox.report("trial", 0, RUNNING))
        assert await second == RUNNING
        await asyncio.sleep(0.01)
        assert not report.done()
        third = await waiting(mailbox.next_report("trial"))
        assert not await report  # continue

        await mailbox.start_failed("later")
        assert await third == StartFailure("later")

    run(scenario)


def test_slot_gives_up_after_several_groups_that_cannot_start():
    async def scenario(mailbox):
        for number in range(STARTS_PER_SLOT):
            assert await mailbox.start()
            await mailbox.start_failed(f"reason {number}")
        assert not await mailbox.start()

        assert await mailbox.next_report("trial") == StartFailure("reason 0")
        assert await mailbox.next_report("trial") == SlotFailure("reason 2")

    run(scenario)


def test_trial_that_is_redirected_ends_its_plan_and_takes_the_next():
    """As the slot does it: what its workers still say of the plan before does not count."""

    async def scenario(mailbox):
        config = TrialConfig("wgan", {"generator_lr": 2e-4})
        first = mailbox.next_report("trial")
        report = await waiting(mailbox.report("trial", 0, RUNNING))
        assert await first == RUNNING
        assert not await mailbox.redirect("another", config)
        assert await mailbox.redirect("trial", config)
        assert await mailbox.take_redirected() == config
        assert await mailbox.take_redirected() is None
        await mailbox.cancel("trial")
        plan = dataclasses.replace(mailbox.running.plan, id="trial-4")
        await mailbox.submit("trial", plan)

        assert await report  # stop
        await mailbox.end("trial", None)
        assert await mailbox.take(SOON_S) == plan
        assert await mailbox.report("trial", 1, RUNNING)  # from the plan before
        second = await waiting(mailbox.next_report("trial-4"))
        await waiting(mailbox.report("trial-4", 0, RUNNING))
        assert await second == RUNNING

    run(scenario)


def test_redirection_of_an_earlier_plan_is_forgotten():
    async def scenario(mailbox):
        plan = mailbox.running.plan
        await mailbox.redirect("trial", TrialConfig("wgan", {}))
        await mailbox.submit("trial", plan)

        assert await mailbox.take_redirected() is None

    run(scenario)
