"""Trees of processes that grow at random: by forks, new sessions, daemons and execs; paused, resumed, and ended somehow.

Every process of a job is a puppet that does what it reads from a pipe of its own, so the machine knows each pid. The
oracle is that set of pids: while a job lives the kernel's list of its cgroup must be exactly that, and when it has
ended nothing of it may be left, in /proc or as a cgroup. Where there are no cgroups, all of it must hold but for pauses.
"""

import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobworker.supervisor import family
from tests.harness import processes
from tests.harness.probes import UML, needs_cgroup2, needs_root
from tests.supervisor.conftest import assert_nothing_left
from tests.supervisor.peer import PATIENCE, Peer, Supervisor, wait_until

pytestmark = [needs_root, needs_cgroup2]

MOST_JOBS = 3
MOST_PROCESSES = 40
PUPPET = """
import os, select, signal, sys, threading
directory = sys.argv[1]

def live(name):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    pipe = os.open(f"{directory}/{name}", os.O_RDWR | os.O_CLOEXEC)
    say(f"{name} is {os.getpid()}")
    while True:
        word, *names = os.read(pipe, 4096).decode().split()
        if word == "exec":
            os.execv(sys.executable, [sys.executable, "-S", "-E", "-s", __file__, directory, name])
        elif word == "deafen":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say(f"{name} is deaf")
        elif word == "thread":
            threading.Thread(target=os.read, args=(os.pipe()[0], 1), daemon=True).start()
            say(f"{name} has a thread")
        elif word == "exit":
            os._exit(7)
        elif os.fork() == 0:
            os.close(pipe)
            if word != "fork":
                os.setsid()
            if word == "daemon":
                parent = os.pidfd_open(os.getpid())
                if os.fork():
                    os._exit(0)
                select.select([parent], [], [])  # there are as many processes as are told of
                os.close(parent)
            return live(names[0])

def say(text):
    os.write(1, text.encode() + b"\\n")

live(sys.argv[2])
"""


@dataclass
class Tree:
    """A job that lives; `pids` by puppet, of which `main` is the first."""

    main: str
    leaf: Path = Path()
    paused: bool = False
    pids: dict[str, int] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)


class TreeMachine(RuleBasedStateMachine):
    options: tuple[str, ...] = ()
    has_cgroups = True

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="jw-tree-"))
        (self.directory / "puppet.py").write_text(PUPPET)
        self.trees: dict[str, Tree] = {}
        self.count = 0

    @initialize()
    def open(self) -> None:
        self.supervisor = Supervisor(self.directory / "state", *self.options)
        assert self.supervisor.ready == "ready\n", self.supervisor.log
        self.peer = Peer(self.supervisor.state)
        self.start()

    def teardown(self) -> None:
        try:
            self.peer.socket.close()
            pids = [pid for tree in self.trees.values() for pid in [*tree.pids.values(), *tree.gone]]
            assert self.supervisor.terminate() == 0, self.supervisor.log
            assert not [pid for pid in pids if processes.alive(pid)]
            assert_nothing_left(self.supervisor)
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    # what the machine picks from

    def new_name(self) -> str:
        self.count += 1
        os.mkfifo(self.directory / f"p{self.count}")
        return f"p{self.count}"

    def pick(self, data: st.DataObject, *, running: bool) -> tuple[str, Tree]:
        jobs = [job for job, tree in self.trees.items() if not (running and tree.paused)]
        job = data.draw(st.sampled_from(sorted(jobs)))
        return job, self.trees[job]

    def command(self, job: str, puppet: str, words: str, *, until: str) -> str:
        """Tells a puppet to do something, and waits for what somebody says then; the line."""
        log = self.supervisor.job_directory(job) / "output.log"
        before = log.stat().st_size
        (self.directory / puppet).write_text(words)
        wanted = f"{until} ".encode()
        said = wait_until(log, lambda content: wanted in content[before:] and content.endswith(b"\n"))
        return next(line for line in said[before:].decode().splitlines() if line.startswith(f"{until} "))

    @property
    def runs(self) -> bool:
        return any(not tree.paused for tree in self.trees.values())

    # what happens

    @precondition(lambda self: len(self.trees) < MOST_JOBS)
    @rule()
    def start(self) -> None:
        name = self.new_name()
        job = f"job-{name}"
        puppet = [
            sys.executable,
            "-S",
            "-E",
            "-s",
            str(self.directory / "puppet.py"),
            str(self.directory),
            name,
        ]
        launched = self.peer.launch(job, puppet)
        log = self.supervisor.job_directory(job) / "output.log"
        wait_until(log, lambda content: content.endswith(b"\n"))
        self.trees[job] = Tree(name, self.leaf(launched["pid"]), pids={name: launched["pid"]})

    def leaf(self, pid: int) -> Path:
        """The cgroup of a process; where there are none, what does not exist either."""
        if not self.has_cgroups:
            return self.directory / "none"
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        place = next(line[3:] for line in lines if line.startswith("0::"))
        return Path(self.peer.welcome["cgroup"]["root"]) / Path(place).name

    @precondition(lambda self: self.runs and sum(len(t.pids) for t in self.trees.values()) < MOST_PROCESSES)
    @rule(data=st.data(), how=st.sampled_from(["fork", "session", "daemon"]))
    def grow(self, data: st.DataObject, how: str) -> None:
        job, tree = self.pick(data, running=True)
        parent, child = data.draw(st.sampled_from(sorted(tree.pids))), self.new_name()
        line = self.command(job, parent, f"{how} {child}", until=f"{child} is")
        tree.pids[child] = int(line.split()[2])

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), word=st.sampled_from(["exec", "deafen", "thread"]))
    def change(self, data: st.DataObject, word: str) -> None:
        job, tree = self.pick(data, running=True)
        name = data.draw(st.sampled_from(sorted(tree.pids)))
        self.command(job, name, word, until=f"{name} has" if word == "thread" else f"{name} is")

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def end_one(self, data: st.DataObject) -> None:
        job, tree = self.pick(data, running=True)
        name = data.draw(st.sampled_from(sorted(tree.pids)))
        (self.directory / name).write_text("exit")
        pid = tree.pids[name]
        assert processes.wait_gone(pid, seconds=PATIENCE)
        if name == tree.main:
            self.ended(job)
        else:
            del tree.pids[name]
            tree.gone.append(pid)

    @precondition(lambda self: self.trees and self.has_cgroups)
    @rule(data=st.data(), verb=st.sampled_from(["pause", "resume"]))
    def pause(self, data: st.DataObject, verb: str) -> None:
        job, tree = self.pick(data, running=False)
        assert self.peer.call({"op": verb, "job": job})["op"] == "done"
        tree.paused = verb == "pause"

    @precondition(lambda self: self.trees)
    @rule(data=st.data(), grace_ms=st.sampled_from([0, 1, 50]))
    def stop(self, data: st.DataObject, grace_ms: int) -> None:
        job, _ = self.pick(data, running=False)
        assert self.peer.stop(job, grace_ms=grace_ms)["op"] == "done"
        assert self.ended(job)["stop_requested"]

    @precondition(lambda self: self.trees)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        job, _ = self.pick(data, running=False)
        assert self.peer.signal(job, signal.SIGKILL, tree=True)["op"] == "done"
        assert self.ended(job)["signal"] == signal.SIGKILL

    # what must hold

    def ended(self, job: str) -> dict[str, object]:
        tree = self.trees.pop(job)
        record = self.peer.exited(job)
        assert record["survivors"] == 0
        assert not [pid for pid in [*tree.pids.values(), *tree.gone] if processes.alive(pid)]
        self.peer.jobs()  # one turn of the loop: the cgroup goes after the event
        assert not tree.leaf.exists()
        return record

    @invariant()
    def the_kernel_lists_exactly_the_processes_that_there_are(self) -> None:
        for tree in self.trees.values():
            assert self.listed(tree) == set(tree.pids.values())

    def listed(self, tree: Tree) -> set[int]:
        if self.has_cgroups:
            return {int(line) for line in (tree.leaf / "cgroup.procs").read_text().split()}
        first = tree.pids[tree.main]
        return {first, *filter(family.is_alive, family.descendants(first))}

    @invariant()
    def the_supervisor_holds_exactly_the_jobs_that_there_are(self) -> None:
        held = {listed["job"]: listed["paused"] for listed in self.peer.jobs()}
        assert held == {job: tree.paused for job, tree in self.trees.items()}


class WithoutCgroupsMachine(TreeMachine):
    options = ("--cgroup-root", "/no/such/cgroup")
    has_cgroups = False


TestTree = TreeMachine.TestCase
TestWithoutCgroups = WithoutCgroupsMachine.TestCase
TestTree.settings = TestWithoutCgroups.settings = settings(
    max_examples=4 if UML else 25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
