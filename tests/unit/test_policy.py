"""Role by verb, and ownership, cell by cell; the table covers every RPC there is."""

import inspect

import pytest
from betterproto.grpc.grpclib_server import ServiceBase

from generated.jobworker import v1
from generated.jobworker.v1 import Role
from jobworker import policy
from jobworker.policy import ADMIN, OPERATOR, VIEWER, Caller, may, may_change, may_run_as, may_see

READS = {"GetJob", "ListJobs", "WaitJob", "StreamOutput", "GetWorker"}
CHANGES = {"StartJob", "RunJob", "StopJob", "SignalJob", "PauseJob", "ResumeJob", "UpdateJob", "DeleteJob"}
ADMINISTERS = {"RegisterClient", "ListClients", "RevokeClient"}


def service_methods() -> set[str]:
    bases = [
        cls
        for _, cls in inspect.getmembers(v1, inspect.isclass)
        if issubclass(cls, ServiceBase) and cls is not ServiceBase
    ]
    return {path.rpartition("/")[2] for base in bases for path in vars(base)["__mapping__"](base())}


def test_table_has_exactly_the_methods_of_the_api() -> None:
    assert set(policy.VERBS) == service_methods() == READS | CHANGES | ADMINISTERS


@pytest.mark.parametrize("verb", sorted(READS))
def test_everybody_reads(verb: str) -> None:
    assert may(ADMIN, verb)
    assert may(OPERATOR, verb)
    assert may(VIEWER, verb)


@pytest.mark.parametrize("verb", sorted(CHANGES))
def test_viewers_change_nothing(verb: str) -> None:
    assert may(ADMIN, verb)
    assert may(OPERATOR, verb)
    assert not may(VIEWER, verb)


@pytest.mark.parametrize("verb", sorted(ADMINISTERS))
def test_only_admins_administer(verb: str) -> None:
    assert may(ADMIN, verb)
    assert not may(OPERATOR, verb)
    assert not may(VIEWER, verb)


@pytest.mark.parametrize("role", [Role(Role.UNSPECIFIED), Role.try_value(99)])
def test_an_unknown_role_may_nothing(role: Role) -> None:
    assert not any(may(role, verb) for verb in policy.VERBS)
    assert not may_change(Caller("alice", role), "alice")


@pytest.mark.parametrize("role", [ADMIN, OPERATOR, VIEWER])
def test_an_unknown_verb_is_nobodys(role: Role) -> None:
    assert not may(role, "DropDatabase")
    assert not may(role, "")


def test_operators_see_and_change_their_own_jobs_only() -> None:
    alice = Caller("alice", OPERATOR)
    assert may_see(alice, "alice")
    assert may_change(alice, "alice")
    assert not may_see(alice, "bob")
    assert not may_change(alice, "bob")
    assert not may_see(alice, "Alice")


def test_viewers_see_all_and_change_not_even_what_was_theirs() -> None:
    viewer = Caller("vera", VIEWER)
    assert may_see(viewer, "alice")
    assert not may_change(viewer, "alice")
    assert not may_change(viewer, "vera")


def test_admins_see_and_change_all() -> None:
    admin = Caller("root", ADMIN)
    assert may_see(admin, "alice")
    assert may_change(admin, "alice")


def test_running_as_a_unix_user_needs_the_policy_to_name_it() -> None:
    assert may_run_as(Caller("alice", OPERATOR, unix_user="build"), "build")
    assert not may_run_as(Caller("alice", OPERATOR, unix_user="build"), "root")
    assert not may_run_as(Caller("alice", OPERATOR, uid=61184), "alice")
    assert may_run_as(Caller("root", ADMIN, uid=61184), "build")
