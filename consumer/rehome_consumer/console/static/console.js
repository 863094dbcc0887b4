// Keeps a page up to date: when the server says that something has changed, its content is fetched and put in place.
// Without this script every page works, and shows what was when it was loaded.
"use strict";
(() => {
  const main = document.getElementById("content");
  const trouble = document.getElementById("trouble");
  const live = document.getElementById("live");
  let fetching = false;
  let again = false;

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
    const scrolled = [...main.querySelectorAll("pre, .long")].map((one) => one.scrollTop);
    main.innerHTML = text; // escaped by the server
    for (const one of main.querySelectorAll("details[data-keep]")) one.open = opened.has(one.dataset.keep);
    main.querySelectorAll("pre, .long").forEach((one, place) => { one.scrollTop = scrolled[place] || 0; });
    if (href !== null) {
      const same = [...main.querySelectorAll("a[href]")].find((one) => one.getAttribute("href") === href);
      if (same) same.focus({ preventScroll: true });
    }
    tick();
  };

  const isBusy = () => {
    const at = document.activeElement;
    return main.contains(at) && ["INPUT", "SELECT"].includes(at.tagName);
  };

  const refresh = async () => {
    if (fetching) { again = true; return; }
    if (isBusy() || String(getSelection())) return;
    fetching = true;
    try {
      const address = new URL(location.href);
      address.searchParams.set("part", "1");
      const answer = await fetch(address, { redirect: "manual", cache: "no-store" });
      if (answer.ok) {
        const text = await answer.text();
        const date = Date.parse(answer.headers.get("date"));
        if (date) ahead = Math.round((Date.now() - date) / 1000);
        replace(text);
        say("");
        live.textContent = `Live, last change ${new Date(date || Date.now()).toISOString().slice(11, 19)}.`;
      } else if (answer.type === "opaqueredirect") {
        location.reload();
      } else {
        say("The console cannot answer just now; what you see may be out of date.");
      }
    } catch {
      say("The console does not answer; what you see may be out of date.");
    }
    fetching = false;
    if (again) { again = false; refresh(); }
  };

  tick();
  setInterval(tick, 1000);
  if (!main || !main.hasAttribute("data-live")) return;
  const source = new EventSource("/live");
  let lost = false;
  source.addEventListener("changed", refresh);
  source.addEventListener("trouble", () => say("The state database does not answer; what you see may be out of date."));
  source.addEventListener("well", refresh);
  source.onopen = () => {
    live.textContent = "Live.";
    if (lost) refresh();
    lost = false;
  };
  source.onerror = () => {
    lost = true;
    say("The console does not answer; what you see may be out of date.");
  };
})();
