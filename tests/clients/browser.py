"""The pages in headless Chromium: each is opened, used once, and looked at for accessibility.

Takes the pages' address as its argument, and a client to start whose session is watched; with a folder in PORTCULLIS_SHOTS it keeps a picture of
each page, wide and narrow, light and dark. Whatever was recorded tries to set window.pwned or to
load from elsewhere: that, a word of the browser's about the content security policy, and a
serious finding of axe each end it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

BASE = sys.argv[1]
WATCHED = json.loads(sys.argv[2]) if len(sys.argv) > 2 else None
SHOTS = os.environ.get("PORTCULLIS_SHOTS")
CHROMIUM = os.environ.get("PORTCULLIS_CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SERIOUS = {"serious", "critical"}
wrong = []


def guarded(page):
    """Notes what no page may do."""
    page.on("dialog", lambda dialog: (wrong.append(f"dialog on {page.url}"), dialog.dismiss()))

    def console(message):
        if "Content Security Policy" in message.text or "Content-Security-Policy" in message.text:
            wrong.append(f"{page.url}: {message.text}")

    def requested(request):
        # A page that was exported is opened from a file, and needs nothing.
        own = (BASE, ISSUER, "data:", "file:")
        allowed = request.url.startswith(own) if ISSUER else True
        if not allowed:
            wrong.append(f"{page.url} asked for {request.url}")

    page.on("console", console)
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on("request", requested)
    return page


ISSUER = None


def log_in(browser, user, **options):
    global ISSUER
    context = browser.new_context(**options)
    page = guarded(context.new_page())
    page.goto(BASE + "/")
    page.get_by_role("link", name="Log in with").click()
    ISSUER = re.match(r"http://[^/]+", page.url)[0]
    page.get_by_label(user).check()
    page.get_by_role("button", name="Log in").click()
    expect(page.locator(".who .name")).to_have_text(user)
    return page


def look(page, name):
    """What holds of every page; and its picture."""
    page.wait_for_load_state("load")
    assert page.evaluate("window.pwned") is None, f"{name}: what was recorded ran"
    assert page.locator("main script, main iframe, main object, main [onerror]").count() == 0, name
    found = Axe().run(page).response["violations"]
    found = [one for one in found if one["impact"] in SERIOUS]
    for one in found:
        places = [node["html"][:160] for node in one["nodes"][:3]]
        wrong.append(f"{name}: axe {one['id']}: {one['help']}: {places}")
    if SHOTS:
        folder = Path(SHOTS)
        folder.mkdir(parents=True, exist_ok=True)
        size = page.viewport_size
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for width in (1360, 390):
                page.set_viewport_size({"width": width, "height": 860})
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png")
        page.emulate_media(color_scheme=None)
        page.set_viewport_size(size)
    # Nothing makes the page itself wider than the window.
    size = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 800})
    wide = page.evaluate("document.documentElement.scrollWidth")
    if wide > 391:
        wrong.append(f"{name}: {wide} pixels wide on a telephone")
    page.set_viewport_size(size)


def approve(browser):
    """Somebody's UPDATE waits; the page learns of it, and decides it."""
    page = log_in(browser, "dora")
    asking = page.locator("article.ask").filter(has_text="delete from")
    expect(asking).to_have_count(1, timeout=20_000)
    expect(asking.locator("pre")).to_contain_text("\\u{202e}")
    look(page, "approvals")
    asking.get_by_role("link").first.click()
    expect(page.locator("pre.big")).to_contain_text("<script>window.pwned = 1</script>")
    look(page, "approval")
    page.get_by_label("Comment").fill("fine, once <b>only</b>")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("h1")).to_contain_text("approved")
    expect(page.locator(".votes")).to_contain_text("dora approved it")
    assert page.get_by_role("button", name="Approve").count() == 0
    # It runs without anybody loading the page again.
    expect(page.locator("h1")).to_contain_text("approved, and ran", timeout=20_000)
    # dora asks for access, which somebody else grants.
    page.goto(BASE + "/targets")
    look(page, "targets-asking")
    page.get_by_label("Why").fill("an incident")
    page.get_by_role("button", name="Ask for").click()
    expect(page.locator("h1")).to_contain_text("waits")
    return page


def reach(browser):
    """What somebody may reach: lines to copy, a ticket, its end."""
    page = log_in(browser, "sam")
    page.goto(BASE + "/targets")
    expect(page.locator("article.place")).to_have_count(3)
    expect(page.locator("code").filter(has_text="dbname=orders").first).to_be_visible()
    place = page.locator("article.place").filter(has_text="dbname=orders")
    place.get_by_role("button", name="Make a ticket").click()
    expect(page.locator("#secret")).to_have_text(re.compile("^pct_"))
    look(page, "targets")
    page.get_by_role("button", name="Revoke").first.click()
    expect(page.get_by_role("button", name="Revoke")).to_have_count(0)
    # What the rules say.
    page.get_by_role("link", name="Policy").click()
    page.get_by_label("Target").select_option("orders")
    page.get_by_label("Command").fill("select 1; drop table orders")
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#told")).to_contain_text("block by no-drops")
    look(page, "policy")
    assert page.get_by_role("link", name="Try a draft").count() == 0
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("link", name="Log in with")).to_be_visible(timeout=20_000)


def end(browser, asked):
    """An admin grants access, and ends a session with a reason."""
    page = log_in(browser, "ada")
    page.goto(BASE + "/approvals")
    page.get_by_role("link", name="dora asks for orders").click()
    expect(page.locator("blockquote")).to_have_text("an incident")
    assert page.get_by_role("button", name="Approve").count() == 0
    page.goto(BASE + "/live")
    card = page.locator(".cards li").filter(has_text="sleeper")
    expect(card).to_have_count(1, timeout=20_000)
    look(page, "live")
    card.get_by_text("End it").click()
    card.get_by_label("Reason").fill("it sleeps")
    card.get_by_role("button", name="End the session").click()
    expect(page.locator(".facts").first).to_contain_text("Ended", timeout=20_000)
    # The one who asked sees it decided, without loading the page again.
    approver = log_in(browser, "sam")
    approver.goto(BASE + "/approvals")
    approver.get_by_role("link", name="dora asks for orders").click()
    approver.get_by_role("button", name="Deny").click()
    expect(approver.locator("h1")).to_contain_text("denied")
    expect(asked.locator("h1")).to_contain_text("denied", timeout=20_000)


def watch(browser):
    """Somebody watches a session, whose page follows by itself, until an admin ends it."""
    client = subprocess.Popen(
        WATCHED["words"],
        env={**os.environ, **WATCHED["environment"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def runs(statement):
        client.stdin.write(statement + ";\n")
        client.stdin.flush()

    page = log_in(browser, "audrey")
    page.goto(BASE + "/live")
    runs("select 'the first' as word")
    # It comes by itself, also here.
    card = page.locator(".cards li").filter(has_text="watched")
    expect(card).to_have_count(1, timeout=20_000)
    assert card.get_by_text("End it").count() == 0
    card.get_by_role("link").first.click()
    steps = page.locator(".steps li")
    expect(steps).to_have_count(1, timeout=20_000)
    expect(page.locator("a.badge.open")).to_be_visible(timeout=20_000)
    runs("select 'the second' as word")
    expect(steps).to_have_count(2, timeout=20_000)
    expect(steps.last).to_contain_text("the second")
    # Whoever looks at a command goes on looking at it, and sees how it ends.
    runs("select 'the third' as word from pg_sleep(1)")
    expect(steps).to_have_count(3, timeout=20_000)
    steps.last.click()
    expect(page.locator("#detail")).to_contain_text("SELECT 1", timeout=20_000)
    expect(page.locator("#detail table.rows")).to_contain_text("the third")
    runs("select 'the fourth' as word")
    expect(steps).to_have_count(4, timeout=20_000)
    expect(page.locator(".steps li[aria-current]")).to_contain_text("the third")
    look(page, "session-open")

    admin = log_in(browser, "ada")
    admin.goto(page.url)
    admin.get_by_role("link", name="End it").click()
    admin.wait_for_url("**/live#s-*")
    card = admin.locator(".cards li").filter(has_text="watched")
    card.get_by_text("End it").click()
    card.get_by_label("Reason").fill("seen enough")
    card.get_by_role("button", name="End the session").click()
    expect(admin.locator(".facts").first).to_contain_text("ended by ada", timeout=20_000)
    admin.get_by_text("Who else looked").click()
    # What was asked for stands in the log before it is done.
    said = admin.locator("tr").filter(has_text="seen enough")
    expect(said).to_have_count(2)
    expect(said.filter(has=admin.locator(".mark", has_text="asked"))).to_be_visible()
    # Who watches sees its end, and that its recording is whole, without loading the page again.
    expect(page.locator(".facts").first).to_contain_text("Ended", timeout=20_000)
    expect(page.locator("h1 .mark.open")).to_have_count(0)
    expect(page.locator("a.badge.whole")).to_be_visible(timeout=20_000)
    runs("select 'too late'")
    client.stdin.close()
    assert client.wait(timeout=30) != 0


def keep(browser):
    """An admin keeps a recording for a case, and lets it go."""
    page = log_in(browser, "ada")
    page.goto(BASE + "/sessions?protocol=ssh")
    page.locator("table.list tbody a:not(.run)").first.click()
    page.get_by_text("Hold the recording").click()
    page.get_by_label("Reason").fill("case <b>12</b>")
    page.get_by_role("button", name="Hold it").click()
    expect(page.locator(".held")).to_contain_text("case <b>12</b>")
    look(page, "session-held")
    page.get_by_text("Lift it").click()
    page.get_by_label("Reason").fill("the case is closed")
    page.get_by_role("button", name="Lift the hold").click()
    expect(page.locator(".held")).to_have_count(0)


def investigate(browser):
    """An auditor finds a session and steps through it."""
    page = log_in(browser, "audrey")
    page.goto(BASE + "/sessions")
    expect(page.locator("table.list tbody tr").first).to_be_visible()
    assert page.locator("figure svg a").count() > 0
    look(page, "sessions")
    # Words in a command; empty fields do not stand in the address.
    page.keyboard.press("/")
    page.keyboard.type("pwned")
    page.keyboard.press("Enter")
    page.wait_for_url("**/sessions?text=pwned")
    # A time, drawn.
    page.goto(BASE + "/sessions")
    full = page.locator("figure svg a:has(rect.bar[height]:not([height='0']))").last
    box = full.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 1, box["y"] + 30)
    page.mouse.up()
    page.wait_for_url("**/sessions?from=*&to=*")
    expect(page.locator("table.list tbody tr").first).to_be_visible()

    # Postgres: the hostile session.
    page.goto(BASE + "/sessions?protocol=postgres&verdict=block")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator(".steps li")).not_to_have_count(0)
    expect(page.locator("a.badge.whole")).to_be_visible(timeout=20_000)
    steps = page.locator(".steps li").count()
    first = page.locator("#detail h2").inner_text()
    page.keyboard.press("j")
    expect(page.locator("#detail h2")).not_to_have_text(first)
    assert "command=" in page.url
    page.keyboard.press("k")
    expect(page.locator("#detail h2")).to_have_text(first)
    page.locator(".steps li").filter(has_text="select * from").first.click()
    expect(page.locator("#detail table.rows")).to_contain_text("<img src=x onerror=")
    expect(page.locator("#detail table.rows th").last).to_have_text("<b>note</b>")
    look(page, "session")
    page.locator(".steps li").filter(has_text="drop table").first.click()
    expect(page.locator("#detail")).to_contain_text("no-drops")
    page.keyboard.press("o")
    page.wait_for_url("**/commands/*")
    expect(page.locator("#detail")).to_contain_text("no-drops")
    look(page, "command")
    page.get_by_role("link", name="agent on orders").click()
    assert page.locator(".steps li").count() == steps
    page.get_by_text("Who else looked").click()
    expect(page.get_by_text("recording.command").first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_text("Export").click()
        page.get_by_role("link", name="Recording (.rec)").click()
    assert Path(download.value.path()).read_bytes()[:4] == b"\x50\x2a\x4d\x18"

    # The page for somebody without an account: by itself, without a server, and nothing in it runs.
    with page.expect_download() as download:
        page.get_by_role("link", name="One page with its verification").click()
    alone = Path(download.value.path()).with_suffix(".html")
    Path(download.value.path()).rename(alone)
    page.goto(alone.as_uri())
    expect(page.locator(".badge.whole")).to_contain_text("Whole")
    expect(page.get_by_text("Signed by the key")).to_be_visible()
    expect(page.locator("article table.rows").first).to_contain_text("<img src=x onerror=")
    assert page.locator("main").evaluate("e => getComputedStyle(e).maxWidth") != "none"
    assert page.locator("a[href^='/']").count() == 0
    look(page, "export")

    # HTTP: request and answer, JSON laid out.
    page.goto(BASE + "/sessions?protocol=http")
    page.locator("table.list tbody a").first.click()
    expect(page.locator("pre.json").first).to_contain_text('"')
    look(page, "session-http")

    # SSH: the terminal as it was, with its colour.
    page.goto(BASE + "/sessions?protocol=ssh")
    page.locator("table.list tbody a").first.click()
    screen = page.locator(".player .screen")
    expect(screen).to_contain_text("<script>window.pwned = 1</script>")
    assert "f1" in screen.locator("i", has_text="red").first.get_attribute("class").split()
    page.get_by_label("Time").fill("0")
    expect(screen).not_to_contain_text("<script>")
    page.get_by_role("button", name="Play").click()
    expect(screen).to_contain_text("<script>", timeout=10_000)
    look(page, "session-ssh")
    moments(page)

    # One run, and everything together.
    page.goto(BASE + "/sessions?protocol=postgres&verdict=block")
    page.locator("a.run").first.click()
    expect(page.locator("figure.axis rect.tick.block").first).to_be_attached()
    look(page, "run")
    page.goto(BASE + "/overview?days=1")
    expect(page.locator(".bars")).not_to_have_count(0)
    look(page, "overview")

    # Rules that are not in force, on what was recorded.
    page.goto(BASE + "/policy")
    page.get_by_role("link", name="Try a draft").click()
    page.get_by_label("Draft").fill("[[rule]]\nname = 'x'\nverdict = 'maybe'")
    page.get_by_role("button", name="Try it").click()
    expect(page.get_by_role("alert")).to_contain_text("the draft:3")
    rule = "[[rule]]\nname = 'no-creation'\nactions = ['sql.create']\nverdict = 'block'\n"
    page.get_by_label("Draft").fill(rule)
    page.get_by_role("button", name="Try it").click()
    changed = page.locator("section table.list tbody tr").filter(has_text="no-creation")
    expect(changed).to_contain_text("<script>window.pwned = 1</script>")
    look(page, "draft")

    page.goto(BASE + "/audit?text=session")
    expect(page.locator("table.list tbody tr").first).to_be_visible()
    look(page, "audit")
    page.goto(BASE + "/sessions/01890000-0000-7000-8000-000000000000")
    look(page, "nothing")


def moments(page):
    """At five moments the player shows what another terminal, tmux, shows of the same bytes."""
    page.goto(BASE + "/sessions?protocol=ssh")
    page.locator("table.list tbody a:not(.run)").last.click()
    screen = page.locator(".player .screen")
    expect(screen).to_contain_text("back")
    cast = page.request.get(BASE + page.locator(".player").get_attribute("data-cast")).text()
    header, *events = [json.loads(line) for line in cast.splitlines()]
    size = [header["width"], header["height"]] if header["width"] > 1 else [80, 24]
    length = events[-1][0]
    for part in (1, 2, 3, 4, 5):
        until = length * part / 5
        page.get_by_label("Time").evaluate(
            "(slider, to) => { slider.value = to; slider.dispatchEvent(new Event('input')); }", until
        )
        until = float(page.get_by_label("Time").input_value())
        text = "".join(data for at, kind, data in events if kind == "o" and at <= until)
        expected = tmux(text, *size)
        shown = [line.rstrip() for line in screen.inner_text().split("\n")]
        if "\n".join(shown).rstrip() != "\n".join(expected).rstrip():
            wrong.append(f"the player at {until} s shows {shown}, tmux {expected}")
    print("five moments of a terminal", length)


def tmux(text, columns, rows):
    """The screen of a terminal of that size once it was sent the text."""
    with tempfile.TemporaryDirectory() as folder:
        sent, settings = Path(folder, "sent"), Path(folder, "tmux.conf")
        sent.write_bytes(text.encode() + b"\x1b]2;all of it\x07")
        settings.write_text("set -g status off\nset -g default-terminal tmux-256color\n")
        command = ["tmux", "-u", "-S", f"{folder}/socket", "-f", str(settings)]
        show = f"stty raw -echo; cat {sent}; exec sleep 60"
        size = ["-x", str(columns), "-y", str(rows)]
        subprocess.run([*command, "new-session", "-d", *size, "sh", "-c", show], check=True)
        told = lambda *more: subprocess.run(
            [*command, *more], check=True, capture_output=True, text=True
        ).stdout
        deadline = time.monotonic() + 30
        while "all of it" not in told("display-message", "-p", "#{pane_title}"):
            assert time.monotonic() < deadline, "tmux did not read it all"
        lines = told("capture-pane", "-p").split("\n")
        told("kill-server")
    return [line.rstrip() for line in lines]


def run():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        asked = approve(browser)
        reach(browser)
        end(browser, asked)
        watch(browser)
        keep(browser)
        investigate(browser)
        browser.close()
    if wrong:
        sys.exit("\n".join(wrong))
    print("all pages were used")


if __name__ == "__main__":
    run()
