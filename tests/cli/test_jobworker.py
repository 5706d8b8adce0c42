"""`jobworker` as an operator types it: what is printed where, exit statuses, and what it takes for a certificate."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.harness import Certificates, Worker, probes, processes
from tests.harness.worker import CHECKOUT, PATIENCE, clean_environment, jobworker

Ran = subprocess.CompletedProcess[str]


def run(*arguments: str, environment: dict[str, str] | None = None, cwd: Path = CHECKOUT) -> Ran:
    """One command to its end; PYTHONPATH makes the checkout importable from elsewhere."""
    return subprocess.run(
        jobworker(*arguments), cwd=cwd, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
        env={**clean_environment(), "PYTHONPATH": str(CHECKOUT), **(environment or {})},
    )  # fmt: skip


def errors(done: Ran, status: int) -> list[str]:
    """The one or two lines of a failure, in the form that all failures have."""
    assert (done.returncode, done.stdout) == (status, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert len(lines) <= 2
    assert not any(line.endswith(".") for line in lines)
    return lines


def test_the_version_is_told_without_loading_anything() -> None:
    ask = "import sys; sys.argv = ['jobworker', '--version']\nfrom jobworker.cli import main\n"
    ask += "try: main()\nexcept SystemExit as end: assert end.code == 0\n"
    ask += (
        "print(sorted({'cyclopts', 'asyncio', 'grpclib', 'betterproto', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=CHECKOUT, text=True, capture_output=True, check=True
    )
    assert done.stdout == "jobworker 0.1.0\n[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["sevre"],
        ["serve", "--no-such-flag"],
        ["client", "list", "too", "many"],
        ["serve"],
        ["serve", "--cert", "c", "--client-ca", "a", "--listen", "x:y"],
        ["serve", "--cert", "/no/such", "--client-ca", "/no/such"],
        ["client", "add"],
        ["client", "add", "alice"],
        ["client", "add", "alice", "--cert", "/no/such"],
        ["client", "add", "alice", "--cert", "/etc/passwd"],
        ["client", "add", "alice", "--cert", "/etc/passwd", "--role", "king"],
        ["client", "revoke"],
        ["supervisor", "--state", ""],
    ],
    ids=" ".join,
)
def test_what_was_typed_wrongly_is_told_in_two_lines(arguments: list[str], tmp_path: Path) -> None:
    environment = {} if arguments[0] == "supervisor" else {"JOBWORKER_STATE": str(tmp_path / "state")}
    errors(run(*arguments, environment=environment), 2)


def test_help_names_every_setting() -> None:
    done = run("serve", "--help")
    assert done.returncode == 0
    for flag in (
        "--config",
        "--state",
        "--listen",
        "--cert",
        "--key",
        "--client-ca",
        "--uid-range",
        "--scratch",
    ):
        assert flag in done.stdout


def test_clients_come_are_listed_and_go(tmp_path: Path, certificates: Certificates) -> None:
    state = ("--state", str(tmp_path / "state"))
    assert run("client", "list", *state).stdout.split() == [
        "NAME",
        "ROLE",
        "RUNS",
        "AS",
        "REGISTERED",
        "REVOKED",
        "KEY",
    ]
    added = run(
        "client", "add", "alice", "--cert", str(certificates.of("alice")), "--role", "operator", *state
    )
    assert (added.returncode, added.stdout) == (0, "")
    own = "uid 61184" if probes.ROOT else "the worker's own user"
    assert added.stderr == f"client 'alice' is registered as operator, its jobs run as {own}\n"
    root = (
        "client",
        "add",
        "boss",
        "--cert",
        str(certificates.of("root")),
        "--role",
        "admin",
        "--unix-user",
        "root",
    )
    assert run(*root, *state).stderr == "client 'boss' is registered as admin, its jobs run as user root\n"
    listed = [json.loads(line) for line in run("client", "list", "-o", "json", *state).stdout.splitlines()]
    assert [(row["client_id"], row["role"], row["runs_as"]) for row in listed] == [
        ("alice", "operator", own),
        ("boss", "admin", "user root"),
    ]
    revoked = run("client", "revoke", "alice", *state)
    assert (revoked.returncode, revoked.stdout, revoked.stderr) == (0, "", "client 'alice' is revoked\n")
    table = run("client", "list", *state).stdout.splitlines()
    assert table[1].split()[: 2 + len(own.split())] == ["alice", "operator", *own.split()]
    assert "sha256:" in table[1]
    listed = [json.loads(line) for line in run("client", "list", "-o", "json", *state).stdout.splitlines()]
    assert [bool(row["revoked_at"]) for row in listed] == [True, False]


@probes.needs_root
def test_the_worker_of_an_ordinary_user_runs_jobs_as_nobody_else(certificates: Certificates) -> None:
    program = (  # the interpreter may be one that only root can read, so everything is loaded before
        "import os, sys\nfrom jobworker.cli import client\ncert, state = sys.argv[1:]\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "client.add('alice', cert=cert, state=state)\nclient.list_all(form='json', state=state)\n"
    )
    with tempfile.TemporaryDirectory(prefix="jw-") as directory:
        certificate = Path(directory, "alice.pem")
        certificate.write_bytes(certificates.of("alice").read_bytes())
        for path in (directory, certificate):
            os.chown(path, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", program, certificate, f"{directory}/state"], cwd=CHECKOUT, text=True,
            capture_output=True, timeout=60, check=False, env=clean_environment(),
        )  # fmt: skip
    assert done.stderr == "client 'alice' is registered as operator, its jobs run as the worker's own user\n"
    assert json.loads(done.stdout)["runs_as"] == "the worker's own user"


def test_what_cannot_be_done_exits_with_125(tmp_path: Path, certificates: Certificates) -> None:
    state = ("--state", str(tmp_path / "state"))
    alice = str(certificates.of("alice"))
    assert run("client", "add", "alice", "--cert", alice, *state).returncode == 0
    again = errors(run("client", "add", "alice", "--cert", alice, *state), 125)
    assert again[0] == "error: client 'alice' is registered already"
    taken = errors(run("client", "add", "bob", "--cert", alice, *state), 125)
    assert taken[0] == "error: this public key is registered already, as client 'alice'"
    assert errors(run("client", "revoke", "zed", *state), 125)[0] == "error: no client 'zed'"
    (tmp_path / "file").write_text("")
    nowhere = errors(run("client", "list", "--state", str(tmp_path / "file")), 125)
    assert "is not a directory" in nowhere[0]


def test_wrong_names_and_users(tmp_path: Path, certificates: Certificates) -> None:
    state = ("--state", str(tmp_path / "state"))
    alice = ("--cert", str(certificates.of("alice")))
    assert "cannot be a client's name" in errors(run("client", "add", "a/b", *alice, *state), 2)[0]
    nobody = errors(run("client", "add", "a", *alice, "--unix-user", "no-such-user", *state), 2)
    assert nobody[0] == "error: no user 'no-such-user' on this host"
    assert run("client", "list", "-o", "json", *state).stdout == ""


def test_a_certificate_in_any_of_its_forms_is_the_same_key(
    tmp_path: Path, certificates: Certificates
) -> None:
    pem = certificates.of("alice").read_bytes()  # with its key
    certificate = x509.load_pem_x509_certificate(pem)
    begin = (
        pem.index(b"-----BEGIN PRIVATE KEY") if b"BEGIN PRIVATE KEY" in pem else pem.index(b"-----BEGIN EC")
    )
    key = pem[begin:].split(b"-----\n", 2)
    forms = {
        "pem": certificate.public_bytes(Encoding.PEM),
        "der": certificate.public_bytes(Encoding.DER),
        "key-first": b"-----\n".join(key) + b"\n" + certificate.public_bytes(Encoding.PEM),
        "chain": certificate.public_bytes(Encoding.PEM) + certificates.authority.read_bytes(),
    }
    keys = set()
    for name, data in forms.items():
        (tmp_path / name).write_bytes(data)
        state = ("--state", str(tmp_path / f"state-{name}"))
        assert run("client", "add", "alice", "--cert", str(tmp_path / name), *state).returncode == 0, name
        keys.add(json.loads(run("client", "list", "-o", "json", *state).stdout)["public_key"])
    assert len(keys) == 1


def test_the_state_is_found_by_flag_environment_and_file(tmp_path: Path) -> None:
    (tmp_path / "worker.toml").write_text('state = "by-file"\n')
    config = {"JOBWORKER_CONFIG": str(tmp_path / "worker.toml")}
    by_environment = {**config, "JOBWORKER_STATE": str(tmp_path / "by-environment")}
    for arguments, environment, made in (
        ([], config, "by-file"),
        ([], by_environment, "by-environment"),
        (["--state", "by-flag"], by_environment, "by-flag"),
        ([], {}, "state"),
    ):
        assert run("client", "list", *arguments, environment=environment, cwd=tmp_path).returncode == 0
        assert (tmp_path / made / "jobs.db").exists(), made


@probes.needs_no_root
def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    lines = errors(run("client", "list", "--state", str(tmp_path / "state")), 125)
    assert "permission denied" in lines[0]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_supervisor_of_its_own_serves_the_server(
    tmp_path: Path, make_worker: Callable[..., Worker]
) -> None:
    worker = make_worker()
    assert worker.terminate() == 0  # takes its idle supervisor along
    supervisor = subprocess.Popen(
        jobworker("supervisor", "--state", str(worker.state)),
        cwd=CHECKOUT, env=clean_environment(), text=True, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert supervisor.stderr is not None
        assert any(": ready" in line for line in iter(supervisor.stderr.readline, ""))
        worker.start()
        assert children(supervisor.pid) == [worker.supervisor_pid]
        done = worker.jobctl("run", "--", "echo", "hi")
        assert (done.returncode, done.stdout) == (0, "hi\n")
        second = run("supervisor", "--state", str(worker.state))
        assert second.returncode == 1
        assert f"supervisor {worker.supervisor_pid} already runs" in second.stderr
        assert worker.terminate() == 0  # or it would start another one
    finally:
        supervisor.terminate()
        supervisor.wait(30)
        assert supervisor.stderr is not None
        supervisor.stderr.close()


def test_a_supervisor_under_a_service_manager_says_when_it_is_ready_and_outlives_the_server(
    tmp_path: Path, make_worker: Callable[..., Worker]
) -> None:
    worker = make_worker()
    assert worker.terminate() == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE)
        manager.bind(str(tmp_path / "notify"))
        supervisor = subprocess.Popen(
            jobworker("supervisor", "--state", str(worker.state)),
            cwd=CHECKOUT, env={**clean_environment(), "NOTIFY_SOCKET": str(tmp_path / "notify")},
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert manager.recv(100) == b"READY=1\n"
            worker.start()  # finds it at once, or it would start one of its own
            assert children(supervisor.pid) == [worker.supervisor_pid]
            assert worker.terminate() == 0
            assert supervisor.poll() is None
        finally:
            supervisor.terminate()
            assert supervisor.wait(PATIENCE) == 0


def test_a_service_manager_that_does_not_listen_is_told_of(tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "nobody")}
    lines = errors(run("supervisor", "--state", str(tmp_path / "state"), environment=environment), 125)
    assert "the service manager does not listen" in lines[0]


def test_the_supervisor_is_upgraded_and_jobs_and_followers_go_on(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    script = "echo one; read line < $0; echo $line; exit 5"
    gate = worker.directory / "gate"
    os.mkfifo(gate)
    gate.chmod(0o666)
    assert worker.jobctl("start", "--name", "held", "--", "sh", "-c", script, str(gate)).returncode == 0
    before = worker.supervisor_pid
    done = run("supervisor", "upgrade", "--state", str(worker.state))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"supervisor {before} is jobworker ")
    assert done.stdout.endswith(", 1 job goes on\n")
    gate.write_text("two\n")
    assert worker.jobctl("wait", "held").returncode == 5
    assert worker.jobctl("logs", "held").stdout == "one\ntwo\n"
    end = time.monotonic() + PATIENCE
    while not any(f"the supervisor is process {before} now" in line for line in worker.log):
        assert time.monotonic() < end  # a thread fills the log
        time.sleep(0.01)


def test_where_no_supervisor_runs_none_is_upgraded(tmp_path: Path) -> None:
    done = run("supervisor", "upgrade", "--state", str(tmp_path))
    assert errors(done, 125) == [
        f"error: no supervisor answers in '{tmp_path}': no such file or directory",
        "hint: jobworker serve starts one",
    ]


@probes.needs_full_device
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["client", "list"], ["--version"]])
def test_stdout_that_is_full_or_that_nobody_reads(
    tmp_path: Path, arguments: list[str], unbuffered: str
) -> None:
    environment = {**clean_environment(), "JOBWORKER_STATE": str(tmp_path), "PYTHONUNBUFFERED": unbuffered}
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    for descriptor, ended in (
        (full, (125, "error: cannot write the output: no space left on device\n")),
        (writer, (141, "")),
    ):
        done = subprocess.run(
            jobworker(*arguments), cwd=CHECKOUT, text=True, stdout=descriptor, stderr=subprocess.PIPE, timeout=60,
            check=False, env=environment,
        )  # fmt: skip
        os.close(descriptor)
        assert (done.returncode, done.stderr) == ended


def test_what_the_caller_closed_is_taken_by_nothing_else() -> None:
    """A socket or a file of ours must not get number 1: the server would print into it, uvloop refuses to close it."""
    code = (
        "from jobwire.descriptors import keep_standard_descriptors as keep; import os; keep(); print('x')\n"
    )
    code += "os._exit(os.open(os.devnull, os.O_RDONLY))"
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(closed, cwd=CHECKOUT, timeout=60, check=False).returncode == 3


def test_revoking_ends_what_is_open_at_once(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    started = worker.jobctl("start", "--", "sleep", "600", client="bob")
    assert started.returncode == 0
    follower = subprocess.Popen(
        [sys.executable, "-m", "jobctl.cli", "logs", "-f", started.stdout.strip()],
        cwd=CHECKOUT, env=worker.environment("bob"), text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert worker.jobctl("list", client="bob").returncode == 0  # by now the follower is likely to follow
    assert run("client", "revoke", "bob", "--state", str(worker.state)).returncode == 0
    _, complaint = follower.communicate(timeout=30)
    assert follower.returncode == 125
    assert "revoked" in complaint
    refused = worker.jobctl("list", client="bob")
    assert refused.returncode == 125
    assert "revoked" in refused.stderr
    assert worker.jobctl("list", client="root").returncode == 0


def test_doctor_tells_what_works_and_leaves_nothing_behind() -> None:
    before = cgroup_directories()
    done = run("doctor")
    lines = done.stdout.splitlines()
    refused = [line for line in lines if line.startswith("  no  ")]
    assert done.returncode == (1 if refused else 0)
    assert len([line for line in lines if line.strip().startswith("fix: ")]) == len(refused)
    assert cgroup_directories() == before


def test_doctor_tells_programs_the_same() -> None:
    done = run("doctor", "-o", "json")
    facts = json.loads(done.stdout)
    assert done.returncode == (0 if all(finding["works"] for finding in facts["findings"]) else 1)
    works = {finding["name"]: finding["works"] for finding in facts["findings"]}
    if probes.ROOT and (probes.PURE_V2 or probes.V1):
        assert works["memory_bytes"]
        assert works["cpus"]


def test_doctor_of_a_cgroup_that_is_none(tmp_path: Path) -> None:
    done = run("doctor", "--cgroup-root", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stdout.startswith("no cgroups, ")
    assert "fix: " in done.stdout


def cgroup_directories() -> set[str]:
    """Every cgroup of ours: the tests of others come and go."""
    return {
        folder
        for mount in processes.cgroup_mounts()
        for folder, _, _ in os.walk(mount)
        if "jobworker-examine" in folder
    }
