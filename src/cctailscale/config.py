"""What the user asked for: every setting, where it comes from and what is wrong with it.

This module is the only reader of the environment, and it reads it once: ``load_settings(os.environ)``. A bad setting
never stops the server. It becomes a `SettingProblem` (all of them at once) and `Loaded.check` raises them when a tool
is about to use the tailnet. `Loaded.settings` holds the defaults in place of what was bad, for what has to work before
that: the log and the list of tools.

A value that was given stands in no problem and no warning: a key pasted into the wrong variable would show. The one
exception is a full path, which no key looks like.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from cctailscale.authkey import Key, checked_key, read_key_file, unquoted
from cctailscale.environment import BOOLEANS, BRACED, DEFAULT_STATE_DIR, PLACEHOLDER, full_path, value_of
from cctailscale.errors import SettingProblem, SettingsError
from cctailscale.redact import Redactor

DEFAULT_CONTROL_URL = "https://controlplane.tailscale.com"  # ipn.DefaultControlURL
# As long as somebody logs in, at most.
JOIN_TIMEOUT_SECONDS = (1.0, 3600.0)
# Shorter, a moment's loss of packets would take a member's claims; longer, the others would wait for who has gone.
TEAM_LEASE_SECONDS = (5.0, 3600.0)
# Of a value that is shorter, child_environment cannot say that it stands in another variable on purpose.
_MIN_TELLING_CHARS = 8

SECRET_VARIABLES = (
    "TS_AUTHKEY",
    "TS_CLIENT_SECRET",
    "TS_AUTH_KEY",  # these two are tsnet's; they mean nothing here, and are secrets all the same
    "TS_ID_TOKEN",
    "CLAUDE_CODE_MESSAGING_TOKEN",
    "CLAUDE_CODE_MESSAGING_SOCKET",
)
_KEY_FILES = ("TS_AUTHKEY_FILE", "TS_CLIENT_SECRET_FILE")
_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|(?:API|AUTH|ACCESS|PRIVATE)_?KEY)$", re.IGNORECASE
)

# A login: "ada@example.com", "ada@github", and "ada@" for a Headscale's user without a domain.
_LOGIN = re.compile(r"[^\s@,:\x00-\x1f\x7f]+@[^\s@,:\x00-\x1f\x7f]*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DEVICE = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")  # a MagicDNS name, short or full
_LOOPBACK = re.compile(r"localhost|::1|127\.\d+\.\d+\.\d+")
_TAG = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]*")  # tailcfg.CheckTag


# Each of these turns the text of one variable into a value. The ValueError's text follows on the variable's name.


def _flag(given: object) -> object:
    if isinstance(given, str):
        if given.strip().lower() not in BOOLEANS:
            raise ValueError("is neither true nor false.")
        return BOOLEANS[given.strip().lower()]
    return given


def _tags(given: object) -> object:
    if not isinstance(given, str):
        return given
    tags = [tag.strip() for tag in given.split(",") if tag.strip()]
    for number, tag in enumerate(tags, start=1):
        if not tag.startswith("tag:"):
            raise ValueError(f'needs "tag:" in front of each tag; number {number} has none.')
        if not _TAG.fullmatch(tag):
            raise ValueError(f"has a tag (number {number}) that is not a letter followed by letters, digits, hyphens.")
    return tuple(dict.fromkeys(tags))


def _allow_from(given: object) -> object:
    if not isinstance(given, str):
        return given
    entries = [entry.strip() for entry in given.split(",") if entry.strip()]
    for number, entry in enumerate(entries, start=1):
        if entry.lower() == "tagged-devices":
            raise ValueError(f'has "tagged-devices" (number {number}), which is nobody; name the tags instead.')
        if _is_address(entry):
            raise ValueError(f"has an address (number {number}); name the device instead.")
        if entry != "*" and not any(form.fullmatch(entry) for form in (_TAG, _LOGIN, _DEVICE)):
            raise ValueError(f"has something (number {number}) that is no login, no tag, no device's name and not *.")
    return tuple(dict.fromkeys(entry.removesuffix(".") for entry in entries))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _channels(given: object) -> object:
    word = given.strip().lower() if isinstance(given, str) else given
    if word in ("off", "hint", "body"):
        return word
    if word not in BOOLEANS:
        raise ValueError('is neither "1", "0" nor "body".')
    return "hint" if BOOLEANS[str(word)] else "off"


def _seconds(given: object, bounds: tuple[float, float]) -> object:
    low, high = bounds
    try:
        seconds = float(given) if isinstance(given, str | int | float) else math.nan
    except ValueError:
        seconds = math.nan
    if not low <= seconds <= high:  # false for NaN too
        raise ValueError(f"is not a number of seconds from {low:g} to {high:g}.")
    return seconds


def _join_timeout(given: object) -> object:
    return _seconds(given, JOIN_TIMEOUT_SECONDS)


def _team_lease(given: object) -> object:
    return _seconds(given, TEAM_LEASE_SECONDS)


def _audit_log(given: object) -> object:
    # Lines in which others have chosen words must not get to where a system reads commands from (.profile).
    if isinstance(given, str) and not given.endswith((".jsonl", ".log")):
        raise ValueError("does not end in .jsonl or .log.")
    return given


def _log_level(given: object) -> object:
    word = given.strip().lower() if isinstance(given, str) else given
    if word is not None and word not in ("debug", "info", "warning", "error"):
        raise ValueError("is none of debug, info, warning and error.")
    return word


def _join(given: object) -> object:
    word = given.strip().lower() if isinstance(given, str) else given
    if word not in ("first-use", "start"):
        raise ValueError('is neither "first-use" nor "start".')
    return word


def _control_url(given: object) -> object:
    if not isinstance(given, str):
        return given
    wrong = "is not an http or https URL."
    try:
        parts = urlsplit(given.strip())
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a broken IPv6 address
        raise ValueError(wrong) from None
    if not sound or re.search(r"[\s\x00-\x1f\x7f\\]", given.strip()):
        raise ValueError(wrong)
    if "@" in parts.netloc:
        raise ValueError("holds a user or password; a control server takes none in its URL.")
    if parts.query or parts.fragment:
        raise ValueError("holds more than scheme, host, port and path.")
    return given.strip().rstrip("/")


def _auth_key(given: object) -> object:
    return checked_key(given, oauth_only=False) if isinstance(given, str) else given


def _client_secret(given: object) -> object:
    return checked_key(given, oauth_only=True) if isinstance(given, str) else given


Flag = Annotated[bool, BeforeValidator(_flag)]


def _setting(variable: str, description: str, example: str, default: Any = None) -> Any:  # noqa: ANN401 - like Field
    return Field(default, validation_alias=variable, description=description, examples=[example])


class Settings(BaseSettings):
    """Every setting, frozen. Fields may be given by name (tests) or by variable; nothing is read from ``os.environ``.

    The description and the example of each field are what the documentation and the problems show.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True, validate_default=False
    )

    auth_key: Annotated[SecretStr | None, BeforeValidator(_auth_key)] = _setting(
        "TS_AUTHKEY", "Auth key; an OAuth client secret works here too.", "tskey-auth-…"
    )
    auth_key_file: Path | None = _setting(
        "TS_AUTHKEY_FILE", "File that holds the auth key, readable by its owner only.", "~/.config/tailscale/authkey"
    )
    client_secret: Annotated[SecretStr | None, BeforeValidator(_client_secret)] = _setting(
        "TS_CLIENT_SECRET", "OAuth client secret with the scope auth_keys; needs TS_TAGS.", "tskey-client-…"
    )
    client_secret_file: Path | None = _setting(
        "TS_CLIENT_SECRET_FILE", "File that holds the client secret, readable by its owner only.", "~/.config/ts-secret"
    )
    tags: Annotated[tuple[str, ...], BeforeValidator(_tags)] = _setting(
        "TS_TAGS", "Tags of this device, comma-separated.", "tag:agent,tag:ci", ()
    )
    hostname: str | None = _setting(
        "TS_HOSTNAME", "Name of this device; four random hex digits are appended.", "build-box"
    )
    state_dir: Path = _setting(
        "TS_STATE_DIR", "Root of the sessions' directories.", DEFAULT_STATE_DIR, Path(DEFAULT_STATE_DIR)
    )
    control_url: Annotated[str, BeforeValidator(_control_url)] = _setting(
        "TS_CONTROL_URL", "Control server, such as a Headscale.", "https://headscale.example.com", DEFAULT_CONTROL_URL
    )
    ephemeral: Flag = _setting("TS_EPHEMERAL", "Remove the device when the session ends.", "true", True)
    enable_teams: Flag = _setting("TS_ENABLE_TEAMS", "Register the tools for teams.", "1", False)
    team_lease: Annotated[float, BeforeValidator(_team_lease)] = _setting(
        "TS_TEAM_LEASE", "Seconds after which a member that is not heard of loses its claims.", "90", 90.0
    )
    verbose: Flag = _setting("TS_VERBOSE", "The node's whole log on stderr, redacted.", "1", False)
    log_level: Annotated[Literal["debug", "info", "warning", "error"] | None, BeforeValidator(_log_level)] = _setting(
        "TS_LOG_LEVEL", "Least level of this process's own log: debug, info, warning or error.", "debug"
    )
    audit_log: Annotated[Path | None, BeforeValidator(_audit_log)] = _setting(
        "TS_AUDIT_LOG", "File for who was called and who called: JSON lines, .jsonl or .log.", "~/cc-tailscale.jsonl"
    )
    logs: Flag = _setting("TS_LOGS", "Let the node upload its log to Tailscale.", "0", False)
    accept_routes: Flag = _setting("TS_ACCEPT_ROUTES", "Use the subnet routes that peers offer.", "true", True)
    allow_host_network: Flag = _setting(
        "TS_ALLOW_HOST_NETWORK", "Reach by the host's network what the tailnet does not own.", "0", False
    )
    allow_from: Annotated[tuple[str, ...], BeforeValidator(_allow_from)] = _setting(
        "TS_ALLOW_FROM",
        "Who else may send messages here: logins, tags, names of devices, or *; comma-separated.",
        "bob@example.com,tag:agent",
        (),
    )
    channels: Annotated[Literal["off", "hint", "body"], BeforeValidator(_channels)] = _setting(
        "TS_CHANNELS", "Tell Claude of a message as it arrives: 1, 0, or body for its beginning too.", "body", "hint"
    )
    allow_inbound_forward: Flag = _setting(
        "TS_ALLOW_INBOUND_FORWARD", "Let a tool show a port of this machine to the tailnet.", "0", False
    )
    join: Annotated[Literal["first-use", "start"], BeforeValidator(_join)] = _setting(
        "TS_JOIN", "When to join the tailnet.", "first-use", "first-use"
    )
    join_timeout: Annotated[float, BeforeValidator(_join_timeout)] = _setting(
        "TS_JOIN_TIMEOUT", "Seconds that a join may take.", "60", 60.0
    )
    project_dir: Path = _setting(
        "CLAUDE_PROJECT_DIR", "The project's folder, else the working folder.", "/src/app", Path("/")
    )
    session_id: str | None = _setting("CLAUDE_CODE_SESSION_ID", "The session whose device is taken up again.", "0b5c…")
    user: str | None = _setting("USER", "The user's name, for the device's name.", "ada")
    ssl_cert_file: Path | None = _setting("SSL_CERT_FILE", "Certificates to trust beside the system's.", "/etc/ca.pem")
    https_proxy: SecretStr | None = _setting("HTTPS_PROXY", "Proxy for control and DERP.", "http://proxy.example:3128")
    no_proxy: str | None = _setting("NO_PROXY", "Hosts that are reached without the proxy.", "localhost,.example.com")

    given: tuple[str, ...] = Field((), description="Our variables that are set, by name.")
    warnings: tuple[str, ...] = Field((), description="Oddities that stop nothing, one sentence each.")
    withheld: tuple[SecretStr, ...] = Field((), repr=False, description="Further values to redact.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings gives all five
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is handed in: `load_settings` has taken placeholders and blanks out of the environment."""
        return (init_settings,)

    def read_key(self) -> Key | None:
        """The key to join with, None if there is none (then a person has to log in).

        A file is read anew each time, so that a rotated key is taken up by the next join; the caller gives
        `Key.secrets` to the redactor before using it. The first that is set counts: TS_AUTHKEY, TS_AUTHKEY_FILE,
        TS_CLIENT_SECRET, TS_CLIENT_SECRET_FILE. A client secret that does not say whether its devices are ephemeral
        is told what TS_EPHEMERAL says: upstream would take "true".

        Raises SettingsError: the file cannot be used, or a client secret lacks TS_TAGS.
        """
        for variable, value, file, oauth_only in (
            ("TS_AUTHKEY", self.auth_key, self.auth_key_file, False),
            ("TS_CLIENT_SECRET", self.client_secret, self.client_secret_file, True),
        ):
            if value is not None:
                return self._key(value.get_secret_value(), variable)
            if file is not None:
                source = f"{variable}_FILE"
                try:
                    return self._key(checked_key(read_key_file(file), oauth_only=oauth_only), source)
                except ValueError as error:
                    raise SettingsError([_problem(source, str(error))]) from None
        return None

    def _key(self, key: str, source: str) -> Key:
        oauth = key.startswith("tskey-client-")
        if oauth and not self.tags:
            text = f"is missing: the OAuth client secret in {source} makes devices only with tags that it may give."
            raise SettingsError([_problem("TS_TAGS", text)])
        if oauth and not self.ephemeral and "ephemeral" not in dict(parse_qsl(key.partition("?")[2])):
            key += ("&" if "?" in key else "?") + "ephemeral=false"
        return Key(SecretStr(key), oauth, source)

    def secrets(self) -> tuple[str, ...]:
        """All values to redact: keys (with and without attributes), the proxy's password, Claude Code's token."""
        given = [secret.get_secret_value() for secret in (self.auth_key, self.client_secret) if secret is not None]
        values = [*given, *(secret.get_secret_value() for secret in self.withheld)]
        if self.https_proxy is not None:
            values += _proxy_secrets(self.https_proxy.get_secret_value())
        return tuple(dict.fromkeys(form for value in values for form in (value, value.partition("?")[0]) if form))


@dataclass(frozen=True, slots=True)
class Loaded:
    """The outcome of `load_settings`. While there are problems, `settings` must not be used to join: see `check`."""

    settings: Settings
    problems: tuple[SettingProblem, ...]

    def check(self) -> Settings:
        """The settings, once they are sound. Raises SettingsError with every problem."""
        if self.problems:
            raise SettingsError(self.problems)
        return self.settings


def load_settings(environ: Mapping[str, str]) -> Loaded:
    """Reads every setting out of an environment; never raises for what stands in it.

    Empty values and placeholders that nobody expanded (``${NAME}``, ``${NAME:-x}``, ``$NAME``) count as unset. Key
    files are read once, to find what is wrong with them now and not at the first tool call.
    """
    warnings: list[str] = []
    problems: list[SettingProblem] = []
    values = _given(environ, warnings, problems)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            variable = str(detail["loc"][0])
            ours = detail.get("ctx", {}).get("error")
            problems.append(_problem(variable, str(ours) if ours else "cannot be used."))
            values.pop(variable, None)
        settings = Settings.model_validate(values)
    withheld = list(_secret_values(environ))
    try:
        key = settings.read_key()
        withheld += key.secrets() if key else ()
    except SettingsError as error:
        known = {problem.variable for problem in problems}
        problems += [problem for problem in error.problems if problem.variable not in known]
    warnings += _warnings(settings, environ)
    given = tuple(name for name in values if name.startswith("TS_") and value_of(environ, name))
    found = {"given": given, "warnings": tuple(warnings), "withheld": tuple(map(SecretStr, withheld))}
    return Loaded(settings.model_copy(update=found), tuple(problems))


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for a child process: without every variable that is, or holds, a secret.

    By name (our own, and what is called …_TOKEN, …_SECRET, …_PASSWORD and the like), by value (a key under another
    name) and by shape (a password in a proxy's URL).
    """
    redact = Redactor(*(value for value in _secret_values(environ) if len(value) >= _MIN_TELLING_CHARS))
    return {
        name: value
        for name, value in environ.items()
        if name not in SECRET_VARIABLES
        and not _SECRET_NAME.search(name)
        and not (name in _PROXY_VARIABLES and _proxy_secrets(value))
        and redact(value) == value
    }


def _given(environ: Mapping[str, str], warnings: list[str], problems: list[SettingProblem]) -> dict[str, str]:
    """The variables that are set, by name, with paths expanded."""
    values: dict[str, str] = {}
    for field in Settings.model_fields.values():
        variable = field.validation_alias
        if not isinstance(variable, str):
            continue
        value = environ.get(variable, "").strip()
        if not value and variable in ("HTTPS_PROXY", "NO_PROXY"):  # by custom, also in small letters
            value = environ.get(variable.lower(), "").strip()
        if variable in ("TS_AUTHKEY", "TS_CLIENT_SECRET") and (bare := unquoted(value)) != value:
            warnings.append(f"{variable} stood in quotation marks, which were taken off.")
            value = bare
        if not value or PLACEHOLDER.fullmatch(value):
            continue
        if variable.startswith("TS_") and re.search(BRACED, value):
            problems.append(_problem(variable, "holds a ${…} that nobody expanded."))
            continue
        values[variable] = value
    values.setdefault("TS_STATE_DIR", DEFAULT_STATE_DIR)
    values.setdefault("CLAUDE_PROJECT_DIR", ".")
    warnings += [
        f"{variable} is not a full path: it depends on the folder that the server is started in."
        for variable in ("TS_STATE_DIR", "TS_AUDIT_LOG")
        if not values.get(variable, "/").startswith(("/", "~"))
    ]
    for variable in ("TS_STATE_DIR", "TS_AUDIT_LOG", *_KEY_FILES, "SSL_CERT_FILE", "CLAUDE_PROJECT_DIR"):
        if variable in values:
            try:
                values[variable] = _full_path(values[variable], environ, relative=variable not in _KEY_FILES)
            except ValueError as error:
                del values[variable]
                if variable.startswith("TS_"):  # the others are not ours, and what they are for works without
                    problems.append(_problem(variable, str(error)))
    return values


def _full_path(path: str, environ: Mapping[str, str], *, relative: bool) -> str:
    if not relative and not path.startswith(("/", "~")):
        # A key that was pasted here by mistake is no full path either, and must not be shown as a file's name.
        raise ValueError("is not a full path (one that begins with / or ~). The key itself belongs elsewhere.")
    return full_path(path, environ)


def _problem(variable: str, text: str) -> SettingProblem:
    """`text` follows on the variable's name and ends in a full stop."""
    examples = {field.validation_alias: field.examples for field in Settings.model_fields.values()}
    return SettingProblem(variable, text, f"{variable}={(examples.get(variable) or ['…'])[0]}")


def _secret_values(environ: Mapping[str, str]) -> Iterable[str]:
    """The secrets in an environment, as given and as used. Those that were refused as well: they are secrets too."""
    for variable in SECRET_VARIABLES:
        if value := value_of(environ, variable):
            yield from dict.fromkeys((value, unquoted(value), unquoted(value).partition("?")[0]))
    for variable in _KEY_FILES:  # a key that was pasted where its file belongs
        value = value_of(environ, variable)
        if value and not value.startswith(("/", "~")):
            yield value
    for variable in _PROXY_VARIABLES:
        yield from _proxy_secrets(environ.get(variable, "").strip())


def _proxy_secrets(proxy: str) -> list[str]:
    """The password of a proxy's URL ("http://user:password@host:port", scheme optional), encoded and decoded."""
    userinfo = re.sub(r"\A[a-z0-9]+://", "", proxy.rpartition("@")[0])
    password = userinfo.partition(":")[2]
    return list(dict.fromkeys(form for form in (password, unquote(password)) if form))


def _warnings(settings: Settings, environ: Mapping[str, str]) -> Iterable[str]:
    auth = "TS_AUTHKEY" if settings.auth_key else "TS_AUTHKEY_FILE" if settings.auth_key_file else ""
    oauth = "TS_CLIENT_SECRET" if settings.client_secret else "TS_CLIENT_SECRET_FILE"
    has_oauth = bool(settings.client_secret or settings.client_secret_file)
    if auth and has_oauth:
        yield f"An auth key ({auth}) and a client secret ({oauth}) are set: the auth key is used."
    if settings.auth_key and settings.auth_key_file:
        yield "TS_AUTHKEY and TS_AUTHKEY_FILE are set: TS_AUTHKEY is used."
    if settings.client_secret and settings.client_secret_file and not auth:
        yield "TS_CLIENT_SECRET and TS_CLIENT_SECRET_FILE are set: TS_CLIENT_SECRET is used."
    if environ.get("TS_AUTH_KEY", "").strip():
        yield "TS_AUTH_KEY is not read; the variable is called TS_AUTHKEY."
    control = urlsplit(settings.control_url)
    if control.scheme == "http" and not _LOOPBACK.fullmatch(control.hostname or ""):
        yield "TS_CONTROL_URL has no TLS: whoever is on the way can stand in for the control server."
    if settings.ssl_cert_file and not os.access(settings.ssl_cert_file, os.R_OK):
        yield "SSL_CERT_FILE names a file that cannot be read."
