"""HTTP clients for servers on this machine, which all speak plain HTTP."""

import ssl

import httpx

# It knows no authority, so HTTPS fails. httpx's own default reads the system's authorities for each client: 40 ms of a
# processor, which tests that ask again and again until a server answers would spend all the time.
_NO_AUTHORITY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def plain_http(base_url: str = "", *, timeout: float = 5.0) -> httpx.AsyncClient:
    """A client without TLS and without the environment's proxies; closed by its user (`async with`, `aclose`).

    Args:
        base_url: put before the paths of requests.
        timeout: seconds for each part of a request.
    """
    return httpx.AsyncClient(base_url=base_url, timeout=timeout, trust_env=False, verify=_NO_AUTHORITY)
