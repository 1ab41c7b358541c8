"""Installs templates, lifecycle policy, data stream and aliases in Elasticsearch or OpenSearch.

Objects that are up to date stay; objects of the administrator (the component template
sessiond@custom, an existing policy) are never changed.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, Final
from urllib.parse import quote, urlsplit

from sessiond.engines import templates
from sessiond.errors import ConfigError, OutputError
from sessiond.text import printable

TIMEOUT: Final = 30  # s, for one request
_MAX_ANSWER: Final = 16 << 20  # bytes
_MISSING: Final = 404

Json = dict[str, Any]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, so that credentials go only to the named server."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        """Follow no redirect: it becomes an error with the status 3xx."""


class Engine:
    """An Elasticsearch or OpenSearch server, accessed over HTTP.

    ``url`` is its address, ``authorization`` the value of the Authorization header, ``ca`` a file
    of certificates that replace the system's. The environment (HTTPS_PROXY) selects the proxy.
    """

    def __init__(self, url: str, authorization: str | None = None, ca: str | None = None) -> None:
        """Check the arguments; send no request yet. Raises ConfigError."""
        shown = f"--url: {printable(url)!r} is no URL such as https://es:9200"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigError(shown) from None
        if parts.scheme not in ("http", "https") or not host or port == 0:
            raise ConfigError(shown)
        if parts.username is not None or parts.password is not None:
            raise ConfigError("--url: a password there is shown to everyone; use --password-file")
        if authorization and parts.scheme == "http" and not _is_loopback(host):
            raise ConfigError("--url: with http:// the key can be read on the way; use https://")
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "User-Agent": "sessiond"}
        if authorization:
            self._headers["Authorization"] = authorization
        try:
            context = ssl.create_default_context(cafile=ca)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"--ca: {ca}: {error.strerror or error}") from None
        self._opener = urllib.request.build_opener(
            _NoRedirects(), urllib.request.HTTPSHandler(context=context)
        )

    def ask(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        """Send a request and return status and answer; 404 is a valid answer.

        Raises OutputError if the server can't be reached, refuses, or does not answer in JSON.
        """
        request = urllib.request.Request(  # noqa: S310 -- __init__ has checked the scheme
            f"{self.url}/{path}",
            None if body is None else json.dumps(body).encode(),
            self._headers,
            method=method,
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                status, text = answer.status, answer.read(_MAX_ANSWER)
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read(_MAX_ANSWER)
            if status != _MISSING:
                raise OutputError(self._refusal(method, path, status, text)) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise OutputError(f"{self.url}: {printable(str(reason))}") from None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise OutputError(f"{self.url}: answers no JSON to {method} /{path}: no such engine")
        return status, found

    def _refusal(self, method: str, path: str, status: int, text: bytes) -> str:
        try:
            error = json.loads(text)["error"]
            reason = error["reason"] if isinstance(error, dict) else error
        except (ValueError, TypeError, KeyError, RecursionError):
            reason = text.decode("utf-8", "replace")
        where = f"{self.url}: {method} /{path}: {status}"
        help_ = {
            401: "; name a key with --api-key-file, or --user and --password-file",
            403: "; integrations/elastic/README.md lists the privileges that the key needs",
        }.get(status, "")
        return f"{where}: {printable(str(reason)[:300].strip())}{help_}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def api_key(text: str) -> str:
    """Return the Authorization header of an API key, which is encoded or has the form id:key."""
    encoded = base64.b64encode(text.encode()).decode() if ":" in text else text
    return f"ApiKey {encoded}"


def basic(user: str, password: str) -> str:
    """Return the Authorization header of a user with a password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def install(engine: Engine, *, keep_days: int, dry_run: bool = False) -> Iterator[str]:
    """Install everything, and yield a line for each step; ``dry_run`` only reports the steps.

    ``keep_days`` is the age at which events are deleted. Raises OutputError.
    """
    return _Installation(engine, keep_days, dry_run).run()


class _Installation:
    def __init__(self, engine: Engine, keep_days: int, dry_run: bool) -> None:
        self._engine = engine
        self._keep_days = keep_days
        self._dry_run = dry_run

    def run(self) -> Iterator[str]:
        _, root = self._engine.ask("GET", "")
        version = root.get("version")
        if not isinstance(version, dict) or "number" not in version:
            raise OutputError(f"{self._engine.url}: is neither Elasticsearch nor OpenSearch")
        opensearch = version.get("distribution") == "opensearch"
        name = "OpenSearch" if opensearch else "Elasticsearch"
        yield printable(f"{self._engine.url}: {name} {version['number']}")
        yield self._policy(opensearch)
        changed = False
        for path, name, wanted in (
            (
                "_component_template",
                templates.MAPPINGS,
                templates.component_mappings(opensearch=opensearch),
            ),
            (
                "_component_template",
                templates.SETTINGS,
                templates.component_settings(opensearch=opensearch),
            ),
            ("_component_template", templates.CUSTOM, None),
            ("_index_template", templates.TEMPLATE, templates.index_template()),
        ):
            what = self._template(path, name, wanted)
            changed = changed or what == "updated"
            yield f"{path[1:].replace('_', ' ')} {name}: {self._said(what)}"
        yield from self._data_stream(changed)

    def _policy(self, opensearch: bool) -> str:
        path, wanted = (
            (f"_plugins/_ism/policies/{templates.POLICY}", templates.state_policy(self._keep_days))
            if opensearch
            else (f"_ilm/policy/{templates.POLICY}", templates.lifecycle(self._keep_days))
        )
        label = f"lifecycle policy {templates.POLICY}"
        try:
            status, _ = self._engine.ask("GET", path)
            if status != _MISSING:
                return f"{label}: there already, kept"
            what = self._put(path, wanted)
        except OutputError as error:
            if opensearch and "no handler found" in str(error):
                return f"{label}: left out, this OpenSearch has no Index State Management"
            raise
        return f"{label}: {self._said(what)}, events are kept for {self._keep_days} days"

    def _template(self, kind: str, name: str, wanted: Json | None) -> str:
        """Install a template; None is an empty one for the administrator."""
        status, answer = self._engine.ask("GET", f"{kind}/{quote(name)}")
        if status == _MISSING:
            return self._put(
                f"{kind}/{quote(name)}", {"template": {}} if wanted is None else wanted
            )
        if wanted is None:
            return "there already, kept"
        try:
            found = answer[f"{kind[1:]}s"][0][kind[1:]]
        except (LookupError, TypeError):
            found = None
        if not isinstance(found, dict):
            raise OutputError(f"{self._engine.url}: GET /{kind}: not the answer of an engine")
        if templates.checksum(found) == templates.checksum(wanted):
            return "unchanged"
        self._put(f"{kind}/{quote(name)}", wanted)
        return "updated"

    def _data_stream(self, changed: bool) -> Iterator[str]:
        name = templates.DATA_STREAM
        status, _ = self._engine.ask("GET", f"_data_stream/{name}")
        if status == _MISSING:
            what = self._put(f"_data_stream/{name}", None)
        elif changed:
            what = "rolled over, new events have the new templates"
            if not self._dry_run:
                self._engine.ask("POST", f"{name}/_rollover")
        else:
            what = "unchanged"
        yield f"data stream {name}: {self._said(what)}"
        actions = [{"add": {"index": name, "alias": alias}} for alias in templates.ALIASES]
        if not self._dry_run:
            self._engine.ask("POST", "_aliases", {"actions": actions})
        for alias in templates.ALIASES:
            yield f"alias {alias}: {self._said('set')}"

    def _put(self, path: str, body: Json | None) -> str:
        if not self._dry_run:
            self._engine.ask("PUT", path, body)
        return "created"

    def _said(self, what: str) -> str:
        does = what.startswith(("created", "updated", "rolled over", "set"))
        return f"would be {what}" if self._dry_run and does else what
