// Follows builds: their logs as they grow, and the page anew when one has ended.

import { call, json } from "./api.js";

const EACH_MS = 1000;

for (const place of document.querySelectorAll(".revision")) {
  const { runtime, revision, status } = place.dataset;
  if (status === "pending" || status === "building") follow(place.querySelector(".log"), runtime, revision, status);
}

async function follow(log, runtime, revision, status) {
  const path = `/v1/runtimes/${runtime}/revisions/${revision}`;
  for (;;) {
    await new Promise((done) => setTimeout(done, EACH_MS));
    try {
      const said = await (await call("GET", `${path}/log`)).text();
      if (said) log.textContent = said;
      log.scrollTop = log.scrollHeight;
      const now = (await json("GET", path)).status;
      if (now !== status && now !== "building") return location.reload();
    } catch (error) {
      // Deleted, or the server is away: whoever looks can load the page again.
      if (error.status) return;
    }
  }
}
