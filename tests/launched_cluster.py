"""A Ray cluster on hosts in namespaces, launched with cluster/on-premise.yaml as a user does."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hosts_in_namespaces import Host, Hosts
from object_store import CREDENTIALS

ROOT = Path(__file__).parents[1]
CPUS = 2


class LaunchedCluster:
    """`ray up` and `ray submit` run on the host `desk`, the only one that sees this checkout."""

    def __init__(
        self,
        hosts: Hosts,
        head: str,
        workers: Sequence[str],
        *,
        head_cpus: int = CPUS,
        environment: Mapping[str, str],
    ) -> None:
        """`environment` is set at login on every host, and must contain `MLFLOW_TRACKING_URI`."""
        self.hosts, self.desk = hosts, hosts["desk"]
        self.head, self.workers = hosts[head], [hosts[name] for name in workers]
        self.head_cpus = head_cpus
        self.environment = {
            # All hosts share one machine: its other load must neither delay Ray's workers, which
            # run at a low priority by default, nor get them killed for lack of memory.
            "RAY_worker_niceness": "0",
            "RAY_memory_monitor_refresh_ms": "0",
            **environment,
        }
        self.at_desk = {**self.environment, "PYTHONPATH": "/root/thermal-search"}
        self.config = hosts.folder / f"{head}.yaml"
        self.config.write_text(yaml.safe_dump(self._config(), sort_keys=False))
        checkout = self.desk.home / "thermal-search"
        if not checkout.is_symlink():
            checkout.symlink_to(ROOT)
            (self.desk.home / ".ssh").mkdir()
            shutil.copy(hosts.key, self.desk.home / ".ssh" / "id_ed25519")
            generated = self.desk.run(
                "ray get-auth-token --generate >/dev/null && chmod 600 ~/.ray/auth_token"
            )
            assert generated.returncode == 0, generated.stderr

    def up(self, *flags: str, folder: Path = ROOT) -> "subprocess.CompletedProcess[str]":
        return self._launch(f"ray up -y {' '.join(flags)} --no-config-cache {self.config}", folder)

    def down(self) -> "subprocess.CompletedProcess[str]":
        return self._launch(f"ray down -y {self.config}", ROOT)

    def submit(
        self, *flags: object, script: str = "cluster/search.py", folder: Path = ROOT
    ) -> "subprocess.CompletedProcess[str]":
        return self._launch(self._submission(flags, script), folder)

    def start_submit(
        self,
        *flags: object,
        log: Path,
        script: str = "cluster/search.py",
        folder: Path = ROOT,
    ) -> "subprocess.Popen[bytes]":
        return self.desk.start(f"cd {folder} && {self._submission(flags, script)}", log)

    def on_head(self, command: str) -> "subprocess.CompletedProcess[str]":
        """Runs a command in the environment of a login on the head."""
        return self.head.run(f". ~/.bashrc; {command}")

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that Ray reports as alive."""
        code = (
            "import json, ray; ray.init('auto', logging_level='error', log_to_driver=False);"
            "print('\\n' + json.dumps([n for n in ray.nodes() if n['Alive']]))"
        )
        result = self.on_head(f"python -c {shlex.quote(code)}")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    def python(self, code: str) -> str:
        """Runs Python code at the desk and returns what it prints."""
        command = f"python -W ignore -c {shlex.quote(code)}"
        result = self.desk.run(command, environment=self.at_desk)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def start_python(self, code: str, log: Path) -> "subprocess.Popen[bytes]":
        return self.desk.start(f"python -W ignore -c {shlex.quote(code)}", log, self.at_desk)

    def put(self, folder: Path, address: str) -> None:
        """Copies a folder into a bucket, from the desk."""
        shared = self.hosts.folder / "upload"
        shutil.copytree(folder, shared)
        self.python(
            "from pathlib import Path; from thermal_search.storage import Location;"
            f"bucket, source = Location.of('{address}'), Path('{shared}'); bucket.make_folder();"
            "[(bucket / file.relative_to(source)).write_bytes(file.read_bytes())"
            " for file in source.rglob('*') if file.is_file()]"
        )

    def read(self, address: str, name: str) -> str:
        """The text of a file in a bucket, read at the desk."""
        code = f"print((Location.of('{address}') / '{name}').read_text())"
        return self.python(f"from thermal_search.storage import Location; {code}")

    def list(self, address: str) -> list[str]:
        """The paths of all files below a folder in a bucket."""
        code = f"print(*(f.path for f in Location.of('{address}').list(deep=True)), sep='\\n')"
        return self.python(f"from thermal_search.storage import Location; {code}").splitlines()

    def _submission(self, flags: Sequence[object], script: str) -> str:
        # The remote shell splits the flags a second time.
        quoted = " ".join(shlex.quote(shlex.quote(str(flag))) for flag in flags)
        return f"ray submit --no-config-cache {self.config} {script} {quoted}"

    def _launch(self, command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
        return self.desk.run(f"cd {folder} && {command}", timeout=500)

    def _config(self) -> dict[str, Any]:
        """cluster/on-premise.yaml with the lines marked CHANGE edited.

        The commands that need the internet are left out: the hosts use this Python environment.
        """
        config = yaml.safe_load((ROOT / "cluster" / "on-premise.yaml").read_text())
        config["provider"]["head_ip"] = self.head.address
        config["provider"]["worker_ips"] = [host.address for host in self.workers]
        config["auth"]["ssh_user"] = "root"
        environment, tracking, login = config["setup_commands"][-3:]
        installed = f"{Path(sys.prefix) / 'bin'}:$PATH PYTHONPATH=$HOME/thermal-search"
        variables = dict(self.environment)
        server = variables.pop("MLFLOW_TRACKING_URI")
        assignments = [f"{name}={value}" for name, value in variables.items()]
        environment = environment.replace(
            "~/venv/bin:$PATH", " ".join([installed, "OMP_NUM_THREADS=1", *assignments])
        )
        tracking = tracking.replace("http://127.0.0.1:5000", server)
        config["setup_commands"] = [environment, tracking, login]
        for role, cpus in (("head", self.head_cpus), ("worker", CPUS)):
            flags = f" --num-cpus={cpus} --object-store-memory=200000000"
            config[f"{role}_start_ray_commands"][-1] += flags
        return config


def serve_bucket(host: Host) -> dict[str, str]:
    """Starts an S3 server on a host; returns the environment variables that its clients need."""
    host.start("python -m moto.server -H 0.0.0.0 -p 9000", host.folder / "bucket.log")
    return CREDENTIALS


def bucket_on(host: Host, path: str) -> str:
    """The address of a folder in the bucket that a host serves."""
    options = f"endpoint_override={host.name}:9000&scheme=http&allow_bucket_creation=true"
    return f"s3://team/{path}?{options}"


def serve_mlflow(host: Host, bucket: Host) -> dict[str, str]:
    """Starts an MLflow server as in docs/tracking-server.md, with its artifacts in a bucket.

    Returns the environment variables that the cluster needs.
    """
    database = "postgresql+psycopg2://postgres@/postgres?host=/tmp/postgres"
    if not start_postgresql(host):
        database = "sqlite:////root/runs.db"
    command = "mlflow server --host 0.0.0.0 --port 5000 --workers 1"
    command += f" --allowed-hosts {host.name}:5000,127.0.0.1:5000"
    command += f" --backend-store-uri '{database}' --artifacts-destination s3://team/mlflow"
    environment = {
        **CREDENTIALS,
        "MLFLOW_S3_ENDPOINT_URL": f"http://{bucket.name}:9000",
        # No background jobs: they need ten more processes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    host.start(f"cd /root && {command}", host.folder / "mlflow.log", environment)
    return {"MLFLOW_TRACKING_URI": f"http://{host.name}:5000"}


def start_postgresql(host: Host) -> bool:
    """Starts PostgreSQL, listening on a local socket only; False if it is not installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not versions:
        return False
    # PostgreSQL refuses to run as root.
    result = host.run(
        "set -e; install -d -o postgres /tmp/postgres; cd /tmp/postgres; "
        f"as='setpriv --reuid postgres --regid postgres --clear-groups {versions[-1]}'; "
        "${as}/initdb --auth trust --username postgres data >log; "
        "${as}/pg_ctl -D data -l server.log -w -o \"-k /tmp/postgres -h '' -F\" start >log"
    )
    assert result.returncode == 0, result.stderr
    return True


def wait_for_server(host: Host, port: int, path: str) -> None:
    address = f"http://127.0.0.1:{port}/{path}"
    poll = (
        f"for n in $(seq 240); do curl -sf -o /dev/null {address} && exit; sleep 0.5; done; exit 1"
    )
    assert host.run(poll).returncode == 0, f"{address} does not answer"


def listening(host: Host) -> set[str]:
    """The addresses and ports that the processes of a host listen on."""
    return {line.split()[3] for line in host.run("ss -ltnH").stdout.splitlines()}
