"""A Slurm cluster whose nodes are hosts in namespaces, for tests of cluster/slurm.sh."""

import os
import secrets
import shutil
import time

from hosts_in_namespaces import SYSTEM_PATH, Host, Hosts

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch")


def missing() -> str | None:
    """Why this machine has no Slurm; None if it has."""
    absent = [tool for tool in TOOLS if not shutil.which(tool, path=SYSTEM_PATH)]
    return f"no {', '.join(absent)} (slurm-wlm, munge)" if absent else None


class SlurmCluster:
    """Slurm on some hosts, all of them nodes; the first one also controls. Ends with the hosts."""

    def __init__(self, hosts: Hosts, names: list[str], *, cpus: int) -> None:
        self.hosts = hosts
        self.controller, *_ = self.nodes = [hosts[name] for name in names]
        self.config = hosts.folder / "slurm.conf"
        self.config.write_text(
            "ClusterName=test\n"
            f"SlurmctldHost={self.controller.name}({self.controller.address})\n"
            "SlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\nCredType=cred/munge\n"
            # A job that is queued again waits as long, two minutes by default.
            "AuthInfo=cred_expire=30\n"
            # Without control groups, which belong to the machine and not to a host.
            "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n"
            "JobAcctGatherType=jobacct_gather/none\nMpiDefault=none\n"
            "StateSaveLocation=/tmp/slurm-state\nSlurmdSpoolDir=/tmp/slurm-spool\n"
            "SlurmctldPidFile=/run/slurmctld.pid\nSlurmdPidFile=/run/slurmd.pid\n"
            "SelectType=select/cons_tres\nReturnToService=2\nKillWait=20\n"
            "SchedulerParameters=batch_sched_delay=0,sched_interval=2\n"
            + "".join(
                f"NodeName={node.name} NodeAddr={node.address} CPUs={cpus}\n" for node in self.nodes
            )
            + "PartitionName=all Nodes=ALL Default=YES\n"
        )
        key = hosts.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        os.chown(key, 0, 0)
        for node in self.nodes:
            self._start(node, f"mkdir -p /run/munge && munged --force --key-file {key}")
        self._start(self.controller, "mkdir -p /tmp/slurm-state && slurmctld -i")
        for node in self.nodes:
            self._start(node, f"mkdir -p /tmp/slurm-spool && slurmd -N {node.name}")

    def _start(self, host: Host, command: str) -> None:
        result = host.run(f"cd / && {command}", environment=self._environment)
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"

    @property
    def _environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.config)}

    def run(self, command: str, **variables: str) -> str:
        """What a shell command prints on the controller."""
        result = self.controller.run(command, environment={**variables, **self._environment})
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        return result.stdout

    def state(self, job: str) -> str:
        """The state of a job, such as RUNNING."""
        shown = self.run(f"scontrol show job {job}")
        return shown.partition("JobState=")[2].split()[0]

    def wait(self, job: str, *, timeout_s: float) -> str:
        """The state in which a job ends."""
        deadline = time.monotonic() + timeout_s
        while (state := self.state(job)) in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
            assert time.monotonic() < deadline, f"job {job} is still {state}"
            time.sleep(0.5)
        return state
