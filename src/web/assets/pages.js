// What pages do beyond links and forms: steps by keys, the command beside the list without a new
// page, a time drawn over the histogram, and renewal when something changed. Without it every page
// still works. Nothing foreign is ever parsed as markup but what this gateway's own pages are.
"use strict";

(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const typing = (target) => target.closest("input, select, textarea, [contenteditable]");

  // --- One of our own pages, as a document; none when it is another (a login that is over).
  async function load(address) {
    const answer = await fetch(address, { headers: { accept: "text/html" } });
    if (answer.redirected) { location.reload(); return null; }
    if (!answer.ok) return null;
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  // --- Steps: j and k go through whatever a page lists, Enter opens it.
  const steps = () => all("[data-step]");
  const current = () => steps().findIndex((step) => step.hasAttribute("aria-current"));

  function go(place) {
    const list = steps();
    const step = list[Math.max(0, Math.min(place, list.length - 1))];
    if (!step) return;
    list.forEach((other) => other.removeAttribute("aria-current"));
    step.setAttribute("aria-current", "true");
    step.scrollIntoView({ block: "nearest" });
    const link = $("a[data-detail]", step);
    if (link) open(link);
  }

  // --- The command beside the list.
  let wanted = null;
  async function open(link) {
    wanted = link;
    history.replaceState(null, "", link.getAttribute("href"));
    const page = await load(link.dataset.detail);
    const found = page && $("#detail", page);
    if (found && wanted === link) {
      $("#detail").replaceChildren(...found.childNodes);
    }
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-detail]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    go(steps().indexOf(link.closest("[data-step]")));
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && typing(event.target)) { event.target.blur(); return; }
    if (typing(event.target)) return;
    const at = current();
    switch (event.key) {
      case "j": go(at + 1); break;
      case "k": go(at < 0 ? 0 : at - 1); break;
      case "o": {
        const chosen = at >= 0 && $("a[data-detail]", steps()[at]);
        const link = chosen ? chosen.dataset.detail : ($("[data-only]") || {}).href;
        if (link) location.assign(link);
        break;
      }
      case "Enter": {
        if (event.target.closest("a, button, summary") || at < 0) return;
        const link = $("a[href]", steps()[at]);
        if (link) location.assign(link.href);
        break;
      }
      case "/": {
        const search = $("[data-search]");
        if (!search) return;
        search.focus();
        search.select();
        break;
      }
      default: return;
    }
    event.preventDefault();
  });

  // --- Empty fields do not stand in the address.
  all("form[data-filters]").forEach((form) => form.addEventListener("submit", () => {
    all("input, select", form).forEach((field) => { field.disabled = field.value === ""; });
  }));
  addEventListener("pageshow", () => all("form[data-filters] :disabled").forEach((field) => { field.disabled = false; }));

  // --- A time drawn over the histogram.
  const histogram = $("[data-histogram] svg");
  if (histogram) {
    const columns = all("a", histogram);
    const under = (event) => {
      const box = histogram.getBoundingClientRect();
      const place = Math.floor((event.clientX - box.left) / box.width * columns.length);
      return Math.max(0, Math.min(place, columns.length - 1));
    };
    let from = null;
    const chosen = (a, b) => columns.forEach((column, n) =>
      column.classList.toggle("chosen", n >= Math.min(a, b) && n <= Math.max(a, b)));
    histogram.addEventListener("pointerdown", (event) => {
      if (event.button || event.ctrlKey || event.metaKey || event.pointerType === "touch") return;
      from = under(event);
      histogram.setPointerCapture(event.pointerId);
      chosen(from, from);
      event.preventDefault();
    });
    histogram.addEventListener("pointermove", (event) => { if (from !== null) chosen(from, under(event)); });
    histogram.addEventListener("dragstart", (event) => event.preventDefault());
    histogram.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const ends = [from, under(event)].sort((a, b) => a - b);
      const address = new URL(columns[ends[0]].getAttribute("href"), location.href);
      address.searchParams.set("to", columns[ends[1]].dataset.to);
      from = null;
      location.assign(address.href);
    });
    histogram.addEventListener("pointercancel", () => { from = null; chosen(-1, -2); });
  }

  // --- Lines to copy.
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    try {
      await navigator.clipboard.writeText($("#" + button.dataset.copy).textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren($("#" + button.dataset.copy));
    }
  });

  // --- The recording is verified while somebody reads, and once more when the session has ended.
  const badge = $("a[data-verify]");
  const isOpen = () => Boolean($("h1 .mark.open"));
  let verifiedOpen = null;
  function verify() {
    if (!badge || verifiedOpen === isOpen()) return;
    verifiedOpen = isOpen();
    load(badge.href).then((page) => {
      const found = page && $("#badge", page);
      if (!found) return;
      badge.textContent = found.textContent;
      badge.title = found.title;
      badge.className = found.className;
    });
  }
  verify();

  // --- A narrow screen shows where one is in the row of pages; a menu closes by Escape or elsewhere.
  const here = $(".top nav [aria-current]");
  if (here) here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.clientWidth / 2 + here.offsetWidth / 2;
  const closeMenus = (but) => all("details.menu[open]").forEach((menu) => { if (!menu.contains(but)) menu.open = false; });
  document.addEventListener("click", (event) => closeMenus(event.target));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") closeMenus(null); });

  // --- Renewal: the gateway says that something changed, and the page is asked for again. What
  // somebody writes in stays; where nobody looks, nothing is asked.
  const watched = $("[data-changes]");
  if (watched) {
    let source = null;
    let busy = false;
    let again = false;
    // What opening folds does to a part is no change of it.
    const folded = (part) => part.innerHTML.replaceAll(' open=""', "");
    function replace(part, fresh) {
      if (part.contains(document.activeElement) && typing(document.activeElement)) return;
      if ($("details[open] form", part)) return;
      if (folded(part) === folded(fresh)) return;
      const at = current();
      const focus = part.contains(document.activeElement) && document.activeElement.getAttribute("href");
      const folds = all("details", part).map((fold) => fold.open);
      const box = part.closest(".steps");
      const atEnd = box && box.scrollHeight - box.scrollTop - box.clientHeight < 40;
      part.replaceChildren(...fresh.childNodes);
      all("details", part).forEach((fold, n) => { fold.open = Boolean(folds[n]); });
      if (at >= 0 && current() < 0 && steps()[at]) steps()[at].setAttribute("aria-current", "true");
      if (focus) all("a", part).find((link) => link.getAttribute("href") === focus)?.focus({ preventScroll: true });
      // Whoever looks at the end of the list goes on looking at it.
      if (atEnd) box.scrollTop = box.scrollHeight;
    }
    const renew = async () => {
      if (busy) { again = true; return; }
      busy = true;
      const asked = location.href;
      const page = await load(asked).catch(() => null);
      const [old, fresh] = [all("[data-live]"), page ? all("[data-live]", page) : []];
      if (asked !== location.href) {
        again = true;
      } else if (old.length === fresh.length) {
        old.forEach((part, n) => replace(part, fresh[n]));
        verify();
        // A request that somebody else decided is no longer to be decided here.
        if (page && $("[data-decide]") && !$("[data-decide]", page)) $("[data-decide]").remove();
      }
      busy = false;
      if (again) { again = false; renew(); }
    };
    const listen = () => {
      if (document.hidden) { if (source) { source.close(); source = null; } return; }
      if (source) return;
      source = new EventSource("/changes?" + watched.dataset.changes);
      source.onmessage = renew;
    };
    document.addEventListener("visibilitychange", () => { const before = source; listen(); if (!before && source) renew(); });
    addEventListener("pagehide", () => { if (source) { source.close(); source = null; } });
    listen();
  }
})();
