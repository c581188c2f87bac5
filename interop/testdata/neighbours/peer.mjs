// The lock of @azure/msal-node-extensions from npm, around what its
// PersistenceCachePlugin does with a plain file.
//
//   NODE_EXT=<folder of @azure/msal-node-extensions> node peer.mjs add FILE NAME N PAUSE_MS
//
// With EXTRA_UNLOCK it unlocks what it does not hold, as the plugin does after each
// read.
import fs from "node:fs";
const { CrossPlatformLock } = await import(process.env.NODE_EXT + "/dist/lock/CrossPlatformLock.mjs");
const quiet = { info() {}, error() {}, warning() {}, verbose() {} };
const [, file, name, n, pause] = process.argv.slice(2);
const lock = new CrossPlatformLock(file + ".lockfile", quiet, { retryNumber: 500, retryDelay: 100 });
for (let i = 0; i < +n; i++) {
  const start = Date.now(), client = `${name}-${i}`;
  try {
    await lock.lock();
    const d = JSON.parse((fs.existsSync(file) && fs.readFileSync(file, "utf8")) || "{}");
    d.RefreshToken ??= {};
    d.RefreshToken[`u.t-login.microsoftonline.com-refreshtoken-${client}----`] = {
      home_account_id: "u.t", environment: "login.microsoftonline.com", client_id: client, secret: "secret-of-" + client, credential_type: "RefreshToken",
    };
    fs.writeFileSync(file, JSON.stringify(d), { mode: 0o600 });
    await lock.unlock();
    console.log("ok", client, Date.now() - start);
  } catch (e) {
    console.log("err", client, Date.now() - start, e.constructor.name);
    await lock.unlock().catch(() => {});
  }
  if (process.env.EXTRA_UNLOCK) await lock.unlock().catch(() => {});
  await new Promise((f) => setTimeout(f, +pause));
}
