"""`jobworker doctor`: what this host can do for jobs, and what would make it do the rest."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from jobworker import doctor as findings
from jobworker.cli.client import Format
from jobworker.cli.place import Config, pick

UNWELL = 1


def doctor(
    *,
    cgroup_root: Annotated[
        str | None, Parameter(help="The cgroup to make the tree in, as for serve.")
    ] = None,
    form: Format = "text",
    config: Config = None,
) -> int:
    """0 when all works, 1 when something does not."""
    root = pick("cgroup_root", cgroup_root, config=config)
    is_root, user = findings.current_user()
    host = findings.diagnose(findings.examine(root), root=is_root, user=user)
    if form == "json":
        facts = {"kind": host.kind, "place": host.place, "mode": host.mode, "kernel": os.uname().release}
        facts["findings"] = [asdict(finding) for finding in host.findings]  # type: ignore[assignment]  # not text
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        sys.stdout.writelines(line + "\n" for line in _lines(host))
    return 0 if host.is_well else UNWELL


def _lines(host: findings.Host) -> list[str]:
    where = f", cgroups below {host.place}" if host.place else ""
    lines = [f"{host.kind}, Linux {os.uname().release}, {host.mode}{where}"]
    width = max(len(finding.name) for finding in host.findings)
    for finding in host.findings:
        lines.append(f"  {'ok' if finding.works else 'no'}  {finding.name:<{width}}  {finding.detail}")
        if not finding.works:
            lines.append(f"      {'':<{width}}  fix: {finding.fix}")
    return lines
