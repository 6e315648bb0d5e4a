"""A certificate authority for tests: ACME (RFC 8555) over HTTP on loopback, with DNS challenges.

It checks what a real one checks: signatures and nonces, and that the TXT record of a challenge, which the local
tailnet's control server was asked to publish, holds the digest of the account's key.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.localnet import Localnet

ISSUER = "Test Authority"
DAYS = 90

Json = dict[str, Any]


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Authority:
    """The authority. `directory` is its URL; while `answering` is not set, orders wait; `refusal` ends them."""

    def __init__(self, tailnet: Localnet) -> None:
        self._tailnet = tailnet
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._nonces: set[str] = set()
        self._account: Json | None = None  # its JSON Web Key
        self._orders: dict[str, Json] = {}
        self.url = ""
        self.issued = 0
        self.answering = asyncio.Event()
        self.answering.set()
        self.waiting = asyncio.Event()
        self.left = asyncio.Event()  # set when a client goes while its order waits
        self.refusal: tuple[int, str, str] | None = None  # status, type and detail

    @property
    def directory(self) -> str:
        return f"{self.url}/directory"

    @classmethod
    @asynccontextmanager
    async def started(cls, tailnet: Localnet) -> AsyncIterator[Authority]:
        authority = cls(tailnet)
        app = web.Application()
        app.router.add_get("/directory", authority._directory)
        app.router.add_route("*", "/nonce", authority._nonce)
        for path, answer in (
            ("/account", authority._new_account),
            ("/order", authority._new_order),
            ("/order/{id}", authority._order),
            ("/authorization/{id}", authority._authorization),
            ("/challenge/{id}", authority._challenge),
            ("/finalize/{id}", authority._finalize),
            ("/certificate/{id}", authority._certificate),
        ):
            app.router.add_post(path, authority._signed(answer))
        # Cancelled with its client, so that a test can see the client go.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        authority.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield authority
        finally:
            authority.answering.set()
            await runner.cleanup()

    # ---- the protocol's frame ----------------------------------------------------------------------------------------

    async def _directory(self, _: web.Request) -> web.Response:
        names = {"newNonce": "nonce", "newAccount": "account", "newOrder": "order", "revokeCert": "x", "keyChange": "x"}
        return web.json_response({name: f"{self.url}/{path}" for name, path in names.items()})

    async def _nonce(self, _: web.Request) -> web.Response:
        return web.Response(headers=self._fresh())

    def _fresh(self) -> dict[str, str]:
        nonce = secrets.token_urlsafe(8)
        self._nonces.add(nonce)
        return {"Replay-Nonce": nonce}

    def _signed(
        self, answer: Callable[[web.Request, Json, Json], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            body = await request.json()
            header: Json = json.loads(decoded(body["protected"]))
            key = header.get("jwk") or self._account
            sound = key is not None and header["nonce"] in self._nonces and header["url"] == self.url + request.path
            if not sound or not _verified(body, key):
                return self._problem(400, "malformed", "the request is not signed as it has to be")
            self._nonces.remove(header["nonce"])
            payload: Json = json.loads(decoded(body["payload"]) or b"{}")
            return await answer(request, header, payload)

        return handle

    def _json(self, data: Json, status: int = 200, location: str = "") -> web.Response:
        headers = self._fresh() | ({"Location": f"{self.url}{location}"} if location else {})
        return web.json_response(data, status=status, headers=headers)

    def _problem(self, status: int, kind: str, detail: str) -> web.Response:
        body = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status}
        return web.json_response(body, status=status, headers=self._fresh(), content_type="application/problem+json")

    # ---- its resources -----------------------------------------------------------------------------------------------

    async def _new_account(self, _: web.Request, header: Json, payload: Json) -> web.Response:
        if payload.get("onlyReturnExisting") and self._account is None:
            return self._problem(400, "accountDoesNotExist", "there is no such account")
        status = 201 if self._account is None else 200
        self._account = self._account or header["jwk"]
        return self._json({"status": "valid"}, status, "/account/1")

    async def _new_order(self, _: web.Request, __: Json, payload: Json) -> web.Response:
        if self.refusal is not None:
            return self._problem(*self.refusal)
        self.waiting.set()
        try:
            await self.answering.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        number = str(len(self._orders) + 1)
        self._orders[number] = {
            "status": "pending",
            "identifiers": payload["identifiers"],
            "authorizations": [f"{self.url}/authorization/{number}"],
            "finalize": f"{self.url}/finalize/{number}",
        }
        return self._json(self._orders[number], 201, f"/order/{number}")

    async def _order(self, request: web.Request, _: Json, __: Json) -> web.Response:
        return self._json(self._shown(request.match_info["id"]))

    def _shown(self, number: str) -> Json:
        return {name: value for name, value in self._orders[number].items() if name != "chain"}

    async def _authorization(self, request: web.Request, _: Json, __: Json) -> web.Response:
        number = request.match_info["id"]
        order = self._orders[number]
        status = "pending" if order["status"] == "pending" else "valid"
        challenge = {"type": "dns-01", "url": f"{self.url}/challenge/{number}", "token": f"token{number}"}
        identifier = order["identifiers"][0]
        return self._json({"status": status, "identifier": identifier, "challenges": [challenge | {"status": status}]})

    async def _challenge(self, request: web.Request, _: Json, __: Json) -> web.Response:
        number = request.match_info["id"]
        order = self._orders[number]
        name = f"_acme-challenge.{order['identifiers'][0]['value']}"
        wanted = encoded(sha256(f"token{number}.{self._thumbprint()}".encode()).digest())
        published = await asyncio.to_thread(self._tailnet.admin, "GET", "/dns/challenges")
        held = {record["value"] for record in published["challenges"] if record["name"] == name}
        order["status"] = "ready" if wanted in held else "invalid"
        status = "valid" if wanted in held else "invalid"
        url = f"{self.url}/challenge/{number}"
        return self._json({"type": "dns-01", "url": url, "token": f"token{number}", "status": status})

    def _thumbprint(self) -> str:
        """RFC 7638."""
        assert self._account is not None
        members = {name: self._account[name] for name in ("crv", "kty", "x", "y")}
        return encoded(sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest())

    async def _finalize(self, request: web.Request, _: Json, payload: Json) -> web.Response:
        number = request.match_info["id"]
        order = self._orders[number]
        if order["status"] != "ready":
            return self._problem(403, "orderNotReady", "the challenge is not met")
        order["chain"] = self._issue(x509.load_der_x509_csr(decoded(payload["csr"])))
        order |= {"status": "valid", "certificate": f"{self.url}/certificate/{number}"}
        self.issued += 1
        return self._json(self._shown(number), 200, f"/order/{number}")

    def _issue(self, request: x509.CertificateSigningRequest) -> bytes:
        now = datetime.now(UTC)
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, ISSUER)])
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        builder = x509.CertificateBuilder(issuer, request.subject, request.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=DAYS))
        builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    async def _certificate(self, request: web.Request, _: Json, __: Json) -> web.Response:
        chain: bytes = self._orders[request.match_info["id"]]["chain"]
        return web.Response(body=chain, headers=self._fresh(), content_type="application/pem-certificate-chain")


def _verified(body: Json, key: Json) -> bool:
    """Whether a JSON Web Signature (RFC 7515, ES256) is that of `key`."""
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(decoded(key["x"])), int.from_bytes(decoded(key["y"])), ec.SECP256R1()
    )
    signature = decoded(body["signature"])
    pair = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    try:
        signed = f"{body['protected']}.{body['payload']}".encode()
        numbers.public_key().verify(pair, signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
