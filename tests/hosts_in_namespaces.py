"""Several hosts on one machine, for tests of a real cluster: Linux namespaces with an sshd each.

A host is a process tree with its own network, processes, mounts, host name and home folder, on a
switch that no other process can reach. Every process of it dies with the process that created it:
nothing is left behind, even if the tests are killed.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TOOLS = ("unshare", "nsenter", "setpriv", "ip", "ssh", "sshd", "ssh-keygen", "rsync", "curl")
HIDDEN = (Path("/tmp"), Path("/run"), Path("/dev/shm"))
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> str | None:
    """Why this machine cannot run such hosts; None if it can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "hosts in namespaces need Linux and root"
    absent = [tool for tool in TOOLS if not shutil.which(tool, path=SYSTEM_PATH)]
    if absent:
        packages = "openssh-server, rsync, iproute2, curl"
        return f"hosts in namespaces need {', '.join(absent)} ({packages})"
    attempt = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "ip", "link"],
        capture_output=True,
        check=False,
    )
    return None if attempt.returncode == 0 else "this machine does not allow new namespaces"


class Host:
    """One host. Its home folder survives a power-off; its memory and /tmp do not."""

    def __init__(
        self,
        hosts: "Hosts",
        name: str,
        number: int,
        *,
        hidden: Sequence[Path],
        visible: Sequence[Path],
    ) -> None:
        self.hosts, self.name = hosts, name
        self.address = f"10.77.0.{number}"
        self.port = f"port{number}"
        self.hidden = [*HIDDEN, *hidden]
        self.visible = [hosts.folder, Path(sys.base_prefix), Path(sys.prefix), *visible]
        self.folder = hosts.folder / "folders" / name
        self.home = self.folder / "home"
        self.home.mkdir(parents=True)

    def power_on(self) -> None:
        """Starts the host and waits for its sshd."""
        (self.folder / "init").write_text(self._init())
        command = ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork"]
        command += ["--mount-proc", "--kill-child", "bash", str(self.folder / "init")]
        (self.folder / "ready").unlink(missing_ok=True)
        with (self.folder / "console").open("ab") as console:
            self.process = _start_bound(command, console)
        _wait_for((self.folder / "ready").exists, f"{self.name} does not start", self._console)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.init = int(children.read_text().split()[0])
        switch = self.hosts.switch.pid
        _ip(switch, f"link add {self.port} type veth peer name eth0 netns {self.init}")
        _ip(switch, f"link set {self.port} master switch up")
        for line in (
            "link set lo up",
            f"address add {self.address}/24 dev eth0",
            "link set eth0 up",
            # No one answers there; Ray derives the host's address from this route.
            "route add default via 10.77.0.254",
            # The clouds' metadata address: unreachable at once, instead of after a timeout.
            "route add unreachable 169.254.0.0/16",
        ):
            _ip(self.init, line)

    def power_off(self) -> None:
        """Kills every process of the host at once, as a power failure does."""
        self.process.kill()
        self.process.wait()

    def disconnect(self) -> None:
        """Cuts the host off the network."""
        _ip(self.hosts.switch.pid, f"link set {self.port} down")

    def reconnect(self) -> None:
        _ip(self.hosts.switch.pid, f"link set {self.port} up")

    def start(
        self, command: str, log: Path, environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Starts a shell command on the host; its output goes to `log`."""
        with log.open("ab") as output:
            return _start_bound(self._entered(command, environment), output)

    def run(
        self, command: str, timeout: float = 300, environment: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self._entered(command, environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def processes(self, text: str) -> list[int]:
        """The process IDs, within the host, of processes whose command line contains `text`."""
        listed = self.run(
            "for p in /proc/[0-9]*; do echo ${p#/proc/} $(tr '\\0' ' ' <$p/cmdline); done"
        )
        lines = (line.split(maxsplit=1) for line in listed.stdout.splitlines())
        return [int(line[0]) for line in lines if len(line) == 2 and text in line[1]]

    def _entered(self, command: str, environment: Mapping[str, str] | None) -> list[str]:
        variables = {
            "HOME": "/root",
            "PATH": f"{Path(sys.prefix) / 'bin'}:{SYSTEM_PATH}",
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            **(environment or {}),
        }
        entered = ["nsenter", "--target", str(self.init), "--net", "--mount", "--pid", "--ipc"]
        entered += ["--uts", "--wdns=/root", "env", "-i"]
        return [*entered, *(f"{k}={v}" for k, v in variables.items()), "bash", "-c", command]

    def _init(self) -> str:
        """The script of the host's first process: mounts what it may see, then serves SSH."""
        folder = self.hosts.folder
        keep = [f"keep {number} {path}" for number, path in enumerate(self.visible)]
        restore = [f"restore {number} {path}" for number, path in enumerate(self.visible)]
        return "\n".join(
            [
                "set -e",
                "mount --make-rprivate /",
                f"hostname {self.name}",
                "mount -t tmpfs keeper /mnt",
                "keep() { mkdir -p /mnt/$1; mount --rbind $2 /mnt/$1; }",
                "hide() { mkdir -p $1; mount -t tmpfs -o size=2g hidden $1; }",
                "restore() { mkdir -p $2; mount --rbind /mnt/$1 $2; }",
                *keep,
                "mkdir -p /mnt/home",
                f"mount --bind {self.home} /mnt/home",
                *(f"hide {path}" for path in self.hidden),
                "mount --rbind /mnt/home /root",
                *restore,
                "umount -l /mnt",
                "mkdir -p /run/sshd",
                # First, as Debian's installer writes it: a name that resolves to the host itself.
                f"(echo 127.0.1.1 {self.name}; cat {folder}/hosts) > {self.folder}/hosts",
                f"mount --bind {self.folder}/hosts /etc/hosts",
                f"mount --bind {folder}/resolv.conf /etc/resolv.conf",
                f"/usr/sbin/sshd -f {folder}/sshd_config",
                f"touch {self.folder}/ready",
                # Adopts orphans, as process 1 must.
                "while :; do sleep 1; done",
            ]
        )

    def _console(self) -> str:
        return (self.folder / "console").read_text()


class Hosts:
    """Several hosts on one switch.

    `folder` is a disk they share. The paths in `hidden` are invisible to them, except to the hosts
    named in `seeing`.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], *, hidden: Sequence[Path], seeing: Sequence[str]
    ) -> None:
        self.folder = folder
        self.key = folder / "key"
        folder.mkdir(parents=True, exist_ok=True)
        for key in (self.key, folder / "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self.hosts = {
            name: Host(
                self,
                name,
                number,
                hidden=[] if name in seeing else hidden,
                visible=hidden if name in seeing else [],
            )
            for number, name in enumerate(names, start=11)
        }
        lines = [
            "127.0.0.1 localhost",
            *(f"{host.address} {host.name}" for host in self.hosts.values()),
        ]
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        (folder / "resolv.conf").write_text("")
        (folder / "sshd_config").write_text(
            f"HostKey {folder}/host_key\nAuthorizedKeysFile {self.key}.pub\n"
            "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\n"
            "StrictModes no\nMaxStartups 100\nPidFile none\n"
        )

    def __enter__(self) -> "Hosts":
        self.switch = _start_bound(["unshare", "--net", "sleep", "infinity"], subprocess.DEVNULL)
        try:
            self._power_on()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _power_on(self) -> None:
        here = os.readlink("/proc/self/ns/net")
        apart = Path(f"/proc/{self.switch.pid}/ns/net")
        _wait_for(lambda: os.readlink(apart) != here, "the switch does not start", str)
        _ip(self.switch.pid, "link add switch type bridge")
        _ip(self.switch.pid, "link set switch up")
        for host in self.hosts.values():
            host.power_on()

    def __exit__(self, *_: object) -> None:
        for host in self.hosts.values():
            if hasattr(host, "process"):
                host.power_off()
        self.switch.kill()
        self.switch.wait()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]


def _start_bound(command: list[str], output: object) -> "subprocess.Popen[bytes]":
    """Starts a process that is killed when this one ends, in any way. Ctrl-C does not reach it."""
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=subprocess.DEVNULL,
        stdout=output,  # pyright: ignore[reportArgumentType]
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _ip(pid: int, command: str) -> None:
    """Runs `ip` in the network namespace of a process."""
    entered = ["nsenter", "--target", str(pid), "--net", "ip", *command.split()]
    subprocess.run(entered, check=True, capture_output=True)


def _wait_for(condition, message: str, details, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{message}: {details()}")
        time.sleep(0.02)
