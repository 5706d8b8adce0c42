"""Which worker, and as whom: where flags, environment and the configuration file meet.

Weight, for each value by itself: flag or argument, then JOBCTL_ADDRESS, _CA, _CERT, _KEY, then the context
(the one named, or JOBCTL_CONTEXT, or the file's `current`). A key belongs to its certificate: one from a lighter
place is not used with a certificate from a heavier one. Relative paths in the file count from the file's
folder. Reads the environment and that one file, connects to nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from jobctl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PORT = 9090


class Context(NamedTuple):
    """A worker and an identity. Paths are absolute or count from the working directory; no key: it is in `cert`."""

    address: str
    ca: str
    cert: str
    key: str | None = None
    name: str = ""

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port; raises ConfigError."""
        return split_address(self.address)


class ConfigFile(NamedTuple):
    """A configuration file as it stands; empty when there is none."""

    path: str
    current: str | None
    tables: dict[str, dict[str, str]]

    def context(self, name: str) -> Context:
        """The context of that name with paths made absolute; raises ConfigError."""
        values = self.values(name)
        for needed in ("address", "ca", "cert"):
            if needed not in values:
                raise ConfigError(
                    f"context '{name}' has no {needed}", hint=f"add {needed} = … to it in {self.path}"
                )
        return Context(values["address"], values["ca"], values["cert"], values.get("key"), name)

    def values(self, name: str) -> dict[str, str]:
        """What the file says of one context, paths made absolute; raises ConfigError."""
        if name not in self.tables:
            known = f"there are: {', '.join(self.tables)}" if self.tables else "jobctl context add makes one"
            raise ConfigError(f"no context '{name}' in {self.path}", hint=known)
        folder = os.path.dirname(os.path.abspath(self.path))
        return {
            what: value if what == "address" else os.path.join(folder, os.path.expanduser(value))
            for what, value in self.tables[name].items()
        }


def config_path(environ: Mapping[str, str] = os.environ) -> str:
    """JOBCTL_CONFIG, else jobctl/config.toml in XDG_CONFIG_HOME or ~/.config."""
    if path := environ.get("JOBCTL_CONFIG"):
        return path
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(home, "jobctl", "config.toml")


def read_config(path: str) -> ConfigFile:
    """The file at `path`; one that is not there is an empty one. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return ConfigFile(path, None, {})
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    return parse_config(data, path)


def parse_config(data: bytes, path: str) -> ConfigFile:
    """What a file with these bytes says; raises ConfigError naming the key that is wrong."""
    import tomllib  # noqa: PLC0415 - most of the time of a command that is told everything by its environment

    try:
        document = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {str(error).lower()}") from error
    current, tables = document.get("current"), document.get("context", {})
    if current is not None and not isinstance(current, str):
        raise ConfigError(f"{path}: current is the name of a context")
    if not isinstance(tables, dict):
        raise ConfigError(f"{path}: context is a table of contexts")
    return ConfigFile(path, current, {name: _table(name, table, path) for name, table in tables.items()})


def _table(name: str, table: object, path: str) -> dict[str, str]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: context.{name} is a table")
    for key, value in table.items():
        if key not in ("address", "ca", "cert", "key"):
            raise ConfigError(
                f"{path}: context.{name} has no use for {key}", hint="address, ca, cert and key"
            )
        if not isinstance(value, str):
            raise ConfigError(f"{path}: context.{name}.{key} is a text in quotes")
    return table


def choose(
    name: str | None = None,
    *,
    address: str | None = None,
    ca: str | None = None,
    cert: str | None = None,
    key: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Context:
    """The context to use, by the rules of weight above; raises ConfigError when something is missing."""
    layers = [
        {"address": address, "ca": ca, "cert": cert, "key": key},
        {what: environ.get(f"JOBCTL_{what.upper()}") for what in ("address", "ca", "cert", "key")},
    ]
    name = name or environ.get("JOBCTL_CONTEXT")
    if name or not all(any(layer[what] for layer in layers) for what in ("address", "ca", "cert")):
        config = read_config(config_path(environ))
        name = name or config.current
        if name:
            layers.append({"key": None, **config.values(name)})
    return _merged(layers, name or "")


def _merged(layers: list[dict[str, str | None]], name: str) -> Context:
    chosen: dict[str, str] = {}
    for layer in layers:
        given = {what: value for what, value in layer.items() if value}
        if "key" in given and "cert" in chosen and "key" not in chosen:
            del given["key"]  # it belongs to a certificate that was outweighed
        chosen = {**given, **chosen}
    missing = [what for what in ("address", "ca", "cert") if what not in chosen]
    if len(missing) == 3:
        raise ConfigError(
            "no worker is configured",
            hint="jobctl context add NAME --address HOST:PORT --ca FILE --cert FILE, or set JOBCTL_ADDRESS, "
            "JOBCTL_CA and JOBCTL_CERT",
        )
    if missing:
        raise ConfigError(
            f"no {missing[0]} is configured", hint=f"give --{missing[0]} or set JOBCTL_{missing[0].upper()}"
        )
    return Context(chosen["address"], chosen["ca"], chosen["cert"], chosen.get("key"), name)


def split_address(address: str) -> tuple[str, int]:
    """ "host:port", "host", "[::1]:port" as host and port; raises ConfigError."""
    host, port = address, str(DEFAULT_PORT)
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        port = rest.removeprefix(":") if rest else port
    elif address.count(":") == 1:
        host, port = address.split(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"'{address}' is no address", hint="HOST:PORT, or [IPv6]:PORT")
    return host, int(port)
