"""A Ray cluster on machines in namespaces, launched with cluster/on-premise.yaml as people do."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hosts_in_namespaces import Machine, Machines
from object_store import CREDENTIALS

ROOT = Path(__file__).parents[1]
CPUS = 2


class LaunchedCluster:
    """Its launcher is typed on the machine `desk`, the only one that sees this checkout."""

    def __init__(
        self,
        machines: Machines,
        head: str,
        workers: Sequence[str],
        *,
        head_cpus: int = CPUS,
        environment: Mapping[str, str],
    ) -> None:
        """`environment` is what the machines find at login, `MLFLOW_TRACKING_URI` among it."""
        self.machines, self.desk = machines, machines["desk"]
        self.head, self.workers = machines[head], [machines[name] for name in workers]
        self.head_cpus = head_cpus
        self.environment = {
            # All machines are one: what else it does shall neither hold up Ray's workers, which
            # by default give way to everything, nor have them killed for the memory it takes.
            "RAY_worker_niceness": "0",
            "RAY_memory_monitor_refresh_ms": "0",
            **environment,
        }
        self.at_desk = {**self.environment, "PYTHONPATH": "/root/thermal-search"}
        self.config = machines.folder / f"{head}.yaml"
        self.config.write_text(yaml.safe_dump(self._config(), sort_keys=False))
        checkout = self.desk.home / "thermal-search"
        if not checkout.is_symlink():
            checkout.symlink_to(ROOT)
            (self.desk.home / ".ssh").mkdir()
            shutil.copy(machines.key, self.desk.home / ".ssh" / "id_ed25519")
            generated = self.desk.run("ray get-auth-token --generate >/dev/null")
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
        """Runs a command as a person would who has logged in to the head."""
        return self.head.run(f". ~/.bashrc; {command}")

    def nodes(self) -> list[dict[str, Any]]:
        """The machines that Ray counts as alive."""
        code = (
            "import json, ray; ray.init('auto', logging_level='error', log_to_driver=False);"
            "print('\\n' + json.dumps([n for n in ray.nodes() if n['Alive']]))"
        )
        told = self.on_head(f"python -c {shlex.quote(code)}")
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout.splitlines()[-1])

    def python(self, code: str) -> str:
        """What a few lines of Python print that are run at the desk."""
        command = f"python -W ignore -c {shlex.quote(code)}"
        told = self.desk.run(command, environment=self.at_desk)
        assert told.returncode == 0, told.stderr
        return told.stdout

    def start_python(self, code: str, log: Path) -> "subprocess.Popen[bytes]":
        return self.desk.start(f"python -W ignore -c {shlex.quote(code)}", log, self.at_desk)

    def put(self, folder: Path, address: str) -> None:
        """Copies a folder into a bucket, from the desk."""
        shared = self.machines.folder / "to put"
        shutil.copytree(folder, shared)
        self.python(
            "from pathlib import Path; from thermal_search.storage import Location;"
            f"bucket, source = Location.of('{address}'), Path('{shared}'); bucket.make_folder();"
            "[(bucket / file.relative_to(source)).write_bytes(file.read_bytes())"
            " for file in source.rglob('*') if file.is_file()]"
        )

    def read(self, address: str, name: str) -> str:
        """A file in a bucket, as the desk sees it."""
        code = f"print((Location.of('{address}') / '{name}').read_text())"
        return self.python(f"from thermal_search.storage import Location; {code}")

    def list(self, address: str) -> list[str]:
        """Every file below a folder in a bucket."""
        code = f"print(*(f.path for f in Location.of('{address}').list(deep=True)), sep='\\n')"
        return self.python(f"from thermal_search.storage import Location; {code}").splitlines()

    def _submission(self, flags: Sequence[object], script: str) -> str:
        # The remote shell splits the flags a second time.
        quoted = " ".join(shlex.quote(shlex.quote(str(flag))) for flag in flags)
        return f"ray submit --no-config-cache {self.config} {script} {quoted}"

    def _launch(self, command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
        return self.desk.run(f"cd {folder} && {command}", timeout=500)

    def _config(self) -> dict[str, Any]:
        """cluster/on-premise.yaml with the lines marked CHANGE changed, and without what needs the
        internet: this environment is there already."""
        config = yaml.safe_load((ROOT / "cluster" / "on-premise.yaml").read_text())
        config["provider"]["head_ip"] = self.head.address
        config["provider"]["worker_ips"] = [machine.address for machine in self.workers]
        config["auth"]["ssh_user"] = "root"
        environment, runs, into_logins = config["setup_commands"][-3:]
        installed = f"{Path(sys.prefix) / 'bin'}:$PATH PYTHONPATH=$HOME/thermal-search"
        variables = dict(self.environment)
        server = variables.pop("MLFLOW_TRACKING_URI")
        more = [f"{name}={value}" for name, value in variables.items()]
        environment = environment.replace(
            "~/venv/bin:$PATH", " ".join([installed, "OMP_NUM_THREADS=1", *more])
        )
        runs = runs.replace("http://127.0.0.1:5000", server)
        config["setup_commands"] = [environment, runs, into_logins]
        for role, cpus in (("head", self.head_cpus), ("worker", CPUS)):
            command = f" --num-cpus={cpus} --object-store-memory=200000000"
            config[f"{role}_start_ray_commands"][-1] += command
        return config


def serve_bucket(machine: Machine) -> dict[str, str]:
    """Starts an S3 server on a machine; returns what its users need in their environment."""
    machine.start("python -m moto.server -H 0.0.0.0 -p 9000", machine.folder / "bucket.log")
    return CREDENTIALS


def bucket_on(machine: Machine, path: str) -> str:
    """The address of a folder in the bucket that a machine serves."""
    options = f"endpoint_override={machine.name}:9000&scheme=http&allow_bucket_creation=true"
    return f"s3://team/{path}?{options}"


def serve_runs(machine: Machine, bucket: Machine) -> dict[str, str]:
    """Starts MLflow's server as docs/tracking-server.md tells, its images in a bucket; returns
    what the cluster's environment needs."""
    database = "postgresql+psycopg2://postgres@/postgres?host=/tmp/postgres"
    if not start_postgresql(machine):
        database = "sqlite:////root/runs.db"
    command = "mlflow server --host 0.0.0.0 --port 5000 --workers 1"
    command += f" --allowed-hosts {machine.name}:5000,127.0.0.1:5000"
    command += f" --backend-store-uri '{database}' --artifacts-destination s3://team/mlflow"
    environment = {
        **CREDENTIALS,
        "MLFLOW_S3_ENDPOINT_URL": f"http://{bucket.name}:9000",
        # No background jobs: ten processes more.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    machine.start(f"cd /root && {command}", machine.folder / "mlflow.log", environment)
    return {"MLFLOW_TRACKING_URI": f"http://{machine.name}:5000"}


def start_postgresql(machine: Machine) -> bool:
    """A database server that listens on a socket of its machine alone; False where there is none
    to start."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        return False
    # It refuses to be root.
    told = machine.run(
        "set -e; install -d -o postgres /tmp/postgres; cd /tmp/postgres; "
        f"as='setpriv --reuid postgres --regid postgres --clear-groups {found[-1]}'; "
        "${as}/initdb --auth trust --username postgres data >log; "
        "${as}/pg_ctl -D data -l server.log -w -o \"-k /tmp/postgres -h '' -F\" start >log"
    )
    assert told.returncode == 0, told.stderr
    return True


def wait_for_server(machine: Machine, port: int, path: str) -> None:
    address = f"http://127.0.0.1:{port}/{path}"
    asked = (
        f"for n in $(seq 240); do curl -sf -o /dev/null {address} && exit; sleep 0.5; done; exit 1"
    )
    assert machine.run(asked).returncode == 0, f"{address} does not answer"


def listening(machine: Machine) -> set[str]:
    """Addresses and ports a machine's processes listen on."""
    return {line.split()[3] for line in machine.run("ss -ltnH").stdout.splitlines()}
