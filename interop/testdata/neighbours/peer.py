"""Debian's msal-extensions and msal, driven by the tests of package interop.

add FILE NAME N PAUSE_MS   adds N entries; prints "ok CLIENT MS" or "err CLIENT MS TEXT" for each; N 0: without end
read FILE CLIENT           reads until standard input ends; prints "reads N BAD" in the end
turns FILE                 for each line of standard input adds an entry of that client, and prints "ok"
sees FILE                  for each line of standard input prints 1 if the client's entry is there, else 0
msal FILE CLIENT WHAT SCOPE [USER]   login, silent, accounts or remove with MSAL Python

With SECRET_SERVICE=SCHEMA:NAME=VALUE the cache is in the Secret Service, and FILE its signal. A SCHEMA of - is MSAL Python's default.
"""
import logging
import os
import sys
import threading
import time

logging.disable(logging.CRITICAL)
import msal
import msal_extensions

AUTHORITY = "https://login.microsoftonline.com/c0000000-0000-4000-8000-000000000001"


def out(*words):
    print(*words, flush=True)


def cache(path):
    service = os.environ.get("SECRET_SERVICE")
    if service:
        schema, attribute = service.split(":", 1)
        name, value = attribute.split("=", 1)
        return msal_extensions.PersistedTokenCache(msal_extensions.LibsecretPersistence(
            path, schema_name=None if schema == "-" else schema, attributes={name: value} if name else {}))
    return msal_extensions.PersistedTokenCache(msal_extensions.FilePersistence(path))


def entry(client):
    return dict(home_account_id="u.t", environment="login.microsoftonline.com", client_id=client,
                secret="secret-of-" + client, credential_type="RefreshToken")


def add(path, name, n, pause):
    c, i = cache(path), 0
    while int(n) == 0 or i < int(n):
        client = "%s-%d" % (name, i)
        e, start, i = entry(client), time.monotonic(), i + 1
        try:
            c.modify("RefreshToken", e, e)
            out("ok", client, int((time.monotonic() - start) * 1000))
        except Exception as x:
            out("err", client, int((time.monotonic() - start) * 1000), type(x).__name__)
        time.sleep(float(pause) / 1000)


def read(path, client):
    c, n, bad, end = cache(path), 0, 0, threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), end.set()), daemon=True).start()
    while not end.is_set():
        n += 1
        try:
            bad += not any(e["client_id"] == client for e in c.find("RefreshToken"))
        except Exception:
            bad += 1
    out("reads", n, bad)


def turns(path):
    c = cache(path)
    out("ready")
    for line in sys.stdin:
        e = entry(line.strip())
        c.modify("RefreshToken", e, e)
        out("ok")


def sees(path):
    c = cache(path)
    list(c.find("RefreshToken"))
    out("ready")
    for line in sys.stdin:
        out(int(any(e["client_id"] == line.strip() for e in c.find("RefreshToken"))))


def run_msal(path, client, what, scope):
    app = msal.PublicClientApplication(client, authority=AUTHORITY, token_cache=cache(path))
    if what == "login":
        flow = app.initiate_device_flow([scope])
        out("code", flow["user_code"], flow["verification_uri"])
        result = app.acquire_token_by_device_flow(flow)
        out("token", result.get("access_token") or result.get("error"))
    elif what == "accounts":
        for a in app.get_accounts():
            out("account", a["home_account_id"], a["username"])
    elif what == "silent":
        accounts = app.get_accounts()
        result = app.acquire_token_silent([scope], account=accounts[0]) if accounts else None
        out("token", result["access_token"] if result else "none")
    elif what == "remove":
        app.remove_account(app.get_accounts()[0])
    out("end")


{"add": add, "read": read, "turns": turns, "sees": sees, "msal": run_msal}[sys.argv[1]](*sys.argv[2:])
