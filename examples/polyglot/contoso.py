"""The Python program of examples/polyglot: MSAL Python, its msal-extensions, and
nothing of tokenkeep.

    contoso.py CACHE_FILE CLIENT_ID AUTHORITY whoami | sign-in | sign-out
"""
import sys

import msal
from msal_extensions import FilePersistence, PersistedTokenCache

path, client_id, authority, what = sys.argv[1:]
app = msal.PublicClientApplication(
    client_id, authority=authority, token_cache=PersistedTokenCache(FilePersistence(path)))
scopes = ["User.Read"]

if what == "sign-in":
    flow = app.initiate_device_flow(scopes)
    print(flow["message"], flush=True)
    result = app.acquire_token_by_device_flow(flow)
    if "access_token" not in result:
        sys.exit(result.get("error_description", result["error"]))

accounts = app.get_accounts()
if not accounts:
    print("Python: nobody is signed in")
for account in accounts:
    if what == "sign-out":
        app.remove_account(account)
        print("Python: signed out")
        continue
    result = app.acquire_token_silent(scopes, account=account)
    print("Python: it is %s; %s" % (account["username"], "here is a token" if result else "there is no token"))
