// Keeps a page up to date: when the server says that something has changed, its content is fetched and put in place.
// Without this script every page works, and shows what was when it was loaded.
"use strict";
(() => {
  const main = document.getElementById("content");
  const trouble = document.getElementById("trouble");
  const live = document.getElementById("live");
  let fetching = false;
  let due = false; // something has changed that is not shown yet
  let rest = 0; // no earlier, in milliseconds since 1970, than this

  const say = (text) => {
    trouble.textContent = text;
    trouble.hidden = !text;
  };

  const span = (seconds) => {
    const whole = Math.max(0, Math.floor(seconds));
    const two = (number) => String(number).padStart(2, "0");
    if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
    return whole >= 60 ? `${Math.floor(whole / 60)} min ${two(whole % 60)} s` : `${whole} s`;
  };

  let ahead = 0; // seconds by which this machine's clock is before the server's
  const tick = () => {
    for (const one of document.querySelectorAll("[data-since]")) {
      one.textContent = span(Date.now() / 1000 - ahead - Number(one.dataset.since));
    }
  };

  // What the reader has opened, or is at, stays so.
  const replace = (text) => {
    const opened = new Set([...main.querySelectorAll("details[open][data-keep]")].map((one) => one.dataset.keep));
    const at = document.activeElement;
    const href = main.contains(at) ? at.getAttribute("href") : null;
    const scrolled = [...main.querySelectorAll("pre, .long, .log")].map((one) => one.scrollTop);
    main.innerHTML = text; // escaped by the server
    for (const one of main.querySelectorAll("details[data-keep]")) one.open = opened.has(one.dataset.keep);
    main.querySelectorAll("pre, .long, .log").forEach((one, place) => { one.scrollTop = scrolled[place] || 0; });
    if (href !== null) {
      const same = [...main.querySelectorAll("a[href]")].find((one) => one.getAttribute("href") === href);
      if (same) same.focus({ preventScroll: true });
    }
    tick();
  };

  const isBusy = () => {
    const at = document.activeElement;
    return (main.contains(at) && ["INPUT", "SELECT"].includes(at.tagName)) || Boolean(String(getSelection()));
  };

  // What cannot be shown now, since the reader is busy or the console does not answer, is shown later: see `tend`.
  const refresh = async () => {
    if (fetching || isBusy()) return;
    fetching = true;
    due = false;
    try {
      const address = new URL(location.href);
      address.searchParams.set("part", "1");
      const answer = await fetch(address, { redirect: "manual", cache: "no-store", signal: AbortSignal.timeout(30000) });
      if (answer.ok) {
        const text = await answer.text();
        if (isBusy()) {
          due = true;
        } else {
          const date = Date.parse(answer.headers.get("date"));
          if (date) ahead = Math.round((Date.now() - date) / 1000);
          replace(text);
          say("");
          live.textContent = `Live, as of ${new Date(date || Date.now()).toISOString().slice(11, 19)}.`;
        }
      } else if (answer.type === "opaqueredirect") {
        location.reload();
      } else {
        later("The console cannot answer just now; what you see may be out of date.");
      }
    } catch {
      later("The console does not answer; what you see may be out of date.");
    }
    fetching = false;
  };

  const later = (why) => {
    say(why);
    due = true;
    rest = Date.now() + 5000;
  };

  const tend = () => {
    if (due && Date.now() >= rest) refresh();
  };

  const changed = () => {
    due = true;
    rest = 0;
    tend();
  };

  tick();
  setInterval(tick, 1000);
  if (!main || !main.hasAttribute("data-live")) return;
  setInterval(tend, 1000);
  const source = new EventSource("/live");
  source.addEventListener("changed", changed);
  source.addEventListener("trouble", () => say("The state database does not answer; what you see may be out of date."));
  source.addEventListener("well", changed);
  source.onopen = () => { live.textContent = "Live."; };
  source.onerror = () => say("The console does not answer; what you see may be out of date.");
})();
