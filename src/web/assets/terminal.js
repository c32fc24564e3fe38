// A recorded terminal, played: what of ECMA-48 the gateway lets through (colours, cursor, erasing,
// scrolling, the other screen), drawn as text in elements. Nothing recorded is ever markup.
"use strict";

(() => {
  const SPEEDS = [1, 2, 4, 8, 16];
  // Longer waits are shortened to this many seconds.
  const LONGEST_WAIT = 2;
  const LINES = { j: "┘", k: "┐", l: "┌", m: "└", n: "┼", q: "─", t: "├", u: "┤", v: "┴", w: "┬", x: "│", a: "▒", "`": "◆", f: "°", g: "±", "~": "·" };

  class Terminal {
    constructor(columns, rows) {
      this.resize(columns, rows);
      this.reset();
    }

    resize(columns, rows) {
      // Whoever asks for a terminal without having one gives no size.
      this.columns = columns > 1 ? Math.min(columns, 500) : 80;
      this.rows = rows > 1 ? Math.min(rows, 300) : 24;
      if (!this.grid) return;
      const fit = (grid) => Array.from({ length: this.rows }, (_, row) =>
        Array.from({ length: this.columns }, (_, column) => (grid[row] && grid[row][column]) || this.blank()));
      this.grid = fit(this.grid);
      this.other = this.other && fit(this.other);
      this.top = 0;
      this.bottom = this.rows - 1;
      this.x = Math.min(this.x, this.columns - 1);
      this.y = Math.min(this.y, this.rows - 1);
    }

    reset() {
      this.pen = { f: null, g: null, b: false, d: false, u: false, r: false };
      this.grid = this.empty();
      this.other = null;
      this.x = this.y = 0;
      this.top = 0;
      this.bottom = this.rows - 1;
      this.saved = { x: 0, y: 0, pen: { ...this.pen } };
      this.wraps = true;
      this.shows = true;
      this.pending = false;
      this.lines = false;
      this.rest = "";
    }

    blank() { return { c: " ", p: null }; }
    row() { return Array.from({ length: this.columns }, () => this.blank()); }
    empty() { return Array.from({ length: this.rows }, () => this.row()); }

    feed(text) {
      text = this.rest + text;
      this.rest = "";
      for (let at = 0; at < text.length;) {
        const code = text.codePointAt(at);
        const c = String.fromCodePoint(code);
        if (c !== "\x1b") { this.put(c); at += c.length; continue; }
        const next = text[at + 1];
        if (next === undefined) { this.rest = text.slice(at); return; }
        if (next === "[") {
          const found = /^\x1b\[([?0-9;:]*)([@-~])/.exec(text.slice(at, at + 64));
          if (!found) {
            if (text.length - at < 64) { this.rest = text.slice(at); return; }
            at += 2;
            continue;
          }
          this.control(found[1], found[2]);
          at += found[0].length;
        } else if (next === "(" || next === ")") {
          if (text[at + 2] === undefined) { this.rest = text.slice(at); return; }
          if (next === "(") this.lines = text[at + 2] === "0";
          at += 3;
        } else {
          this.escape(next);
          at += 2;
        }
      }
    }

    put(c) {
      switch (c) {
        case "\n": this.down(); this.pending = false; return;
        case "\r": this.x = 0; this.pending = false; return;
        case "\b": this.x = Math.max(0, this.x - 1); this.pending = false; return;
        case "\t": this.x = Math.min(this.columns - 1, (this.x >> 3) + 1 << 3); return;
      }
      if (c < " ") return;
      if (this.pending && this.wraps) { this.x = 0; this.down(); }
      this.pending = false;
      this.grid[this.y][this.x] = { c: this.lines && LINES[c] || c, p: { ...this.pen } };
      if (this.x === this.columns - 1) this.pending = true;
      else this.x += 1;
    }

    down() {
      if (this.y === this.bottom) this.scroll(1);
      else if (this.y < this.rows - 1) this.y += 1;
    }

    up() {
      if (this.y === this.top) this.scroll(-1);
      else if (this.y > 0) this.y -= 1;
    }

    scroll(n) {
      n = Math.max(-this.rows, Math.min(n, this.rows));
      for (; n > 0; n -= 1) { this.grid.splice(this.top, 1); this.grid.splice(this.bottom, 0, this.row()); }
      for (; n < 0; n += 1) { this.grid.splice(this.bottom, 1); this.grid.splice(this.top, 0, this.row()); }
    }

    escape(c) {
      switch (c) {
        case "7": this.saved = { x: this.x, y: this.y, pen: { ...this.pen } }; break;
        case "8": ({ x: this.x, y: this.y } = this.saved); this.pen = { ...this.saved.pen }; break;
        case "D": this.down(); break;
        case "E": this.x = 0; this.down(); break;
        case "M": this.up(); break;
      }
      this.pending = false;
    }

    control(parameters, last) {
      if (parameters.startsWith("?")) return this.mode(parameters, last === "h");
      const numbers = parameters.split(/[;:]/).map((text) => Math.min(parseInt(text, 10) || 0, 9999));
      const n = Math.max(1, numbers[0]);
      const clamp = () => {
        this.x = Math.max(0, Math.min(this.x, this.columns - 1));
        this.y = Math.max(0, Math.min(this.y, this.rows - 1));
      };
      this.pending = false;
      switch (last) {
        case "A": this.y -= n; break;
        case "B": case "e": this.y += n; break;
        case "C": case "a": this.x += n; break;
        case "D": this.x -= n; break;
        case "E": this.y += n; this.x = 0; break;
        case "F": this.y -= n; this.x = 0; break;
        case "G": case "`": this.x = n - 1; break;
        case "d": this.y = n - 1; break;
        case "H": case "f": this.y = n - 1; this.x = Math.max(1, numbers[1] || 1) - 1; break;
        case "Z": this.x = Math.max(0, (this.x - 1 >> 3) << 3); break;
        case "J": this.erase(numbers[0]); break;
        case "K": this.eraseLine(this.y, numbers[0]); break;
        case "X": for (let i = 0; i < n && this.x + i < this.columns; i += 1) this.grid[this.y][this.x + i] = this.blank(); break;
        case "P": this.shift(n); break;
        case "@": this.shift(-n); break;
        case "L": case "M": this.moveLines(last === "L" ? -n : n); break;
        case "S": this.scroll(n); break;
        case "T": this.scroll(-n); break;
        case "m": this.colour(numbers); break;
        case "r":
          this.top = Math.min(n, this.rows) - 1;
          this.bottom = Math.min(numbers[1] || this.rows, this.rows) - 1;
          if (this.top >= this.bottom) { this.top = 0; this.bottom = this.rows - 1; }
          this.x = this.y = 0;
          break;
        case "s": this.escape("7"); break;
        case "u": this.escape("8"); break;
      }
      clamp();
    }

    mode(parameters, on) {
      switch (parameters) {
        case "?7": this.wraps = on; break;
        case "?25": this.shows = on; break;
        case "?1048": this.escape(on ? "7" : "8"); break;
        case "?47": case "?1047": case "?1049":
          if (on && !this.other) {
            if (parameters === "?1049") this.escape("7");
            this.other = this.grid;
            this.grid = this.empty();
          } else if (!on && this.other) {
            this.grid = this.other;
            this.other = null;
            if (parameters === "?1049") this.escape("8");
          }
      }
    }

    erase(what) {
      const from = what === 0 ? this.y + 1 : 0;
      const to = what === 1 ? this.y : this.rows;
      for (let row = from; row < to; row += 1) this.grid[row] = this.row();
      if (what < 2) this.eraseLine(this.y, what);
    }

    eraseLine(row, what) {
      const from = what === 0 ? this.x : 0;
      const to = what === 1 ? this.x + 1 : this.columns;
      for (let column = from; column < to; column += 1) this.grid[row][column] = this.blank();
    }

    shift(n) {
      const row = this.grid[this.y];
      for (; n > 0; n -= 1) { row.splice(this.x, 1); row.push(this.blank()); if (n > this.columns) n = this.columns; }
      for (; n < 0; n += 1) { row.splice(this.x, 0, this.blank()); row.pop(); if (-n > this.columns) n = -this.columns; }
    }

    moveLines(n) {
      if (this.y < this.top || this.y > this.bottom) return;
      const top = this.top;
      this.top = this.y;
      this.scroll(n);
      this.top = top;
    }

    colour(numbers) {
      for (let i = 0; i < numbers.length; i += 1) {
        const n = numbers[i];
        if (n === 0) this.pen = { f: null, g: null, b: false, d: false, u: false, r: false };
        else if (n === 1) this.pen.b = true;
        else if (n === 2) this.pen.d = true;
        else if (n === 4) this.pen.u = true;
        else if (n === 7) this.pen.r = true;
        else if (n === 22) this.pen.b = this.pen.d = false;
        else if (n === 24) this.pen.u = false;
        else if (n === 27) this.pen.r = false;
        else if (n >= 30 && n <= 37) this.pen.f = n - 30;
        else if (n === 39) this.pen.f = null;
        else if (n >= 40 && n <= 47) this.pen.g = n - 40;
        else if (n === 49) this.pen.g = null;
        else if (n >= 90 && n <= 97) this.pen.f = n - 90;
        else if (n >= 100 && n <= 107) this.pen.g = n - 100;
        else if (n === 38 || n === 48) {
          const value = numbers[i + 1] === 5 ? nearest256(numbers[i + 2]) : nearest(numbers.slice(i + 2, i + 5));
          i += numbers[i + 1] === 5 ? 2 : 4;
          if (n === 38) this.pen.f = value; else this.pen.g = value;
        }
      }
    }

    text() { return this.grid.map((row) => row.map((cell) => cell.c).join("").trimEnd()).join("\n"); }

    draw(into) {
      const drawn = document.createDocumentFragment();
      this.grid.forEach((row, y) => {
        let run = null;
        row.forEach((cell, x) => {
          const name = this.looks(cell, this.shows && x === this.x && y === this.y);
          if (!run || run.className !== name) {
            run = document.createElement("i");
            run.className = name;
            drawn.append(run);
          }
          run.append(cell.c);
        });
        drawn.append("\n");
      });
      into.replaceChildren(drawn);
    }

    looks(cell, here) {
      const p = cell.p || {};
      let [f, g] = [p.f, p.g];
      if (p.r) [f, g] = [g ?? 0, f ?? 7];
      return [p.b && "b", p.d && "d", p.u && "u", f != null && "f" + f, g != null && "g" + g, here && "cur"].filter(Boolean).join(" ");
    }
  }

  // The nearest of eight colours.
  function nearest([r = 0, g = 0, b = 0]) {
    const most = Math.max(r, g, b);
    if (most < 60) return 0;
    const on = (value) => value > most * 0.66 ? 1 : 0;
    return on(r) | on(g) << 1 | on(b) << 2;
  }

  function nearest256(n = 0) {
    if (n < 16) return n % 8;
    if (n > 231) return n < 240 ? 0 : 7;
    const level = (value) => value % 6 * 51;
    n -= 16;
    return nearest([level(Math.floor(n / 36)), level(Math.floor(n / 6)), level(n)]);
  }

  // --- A player over one recorded terminal.
  class Player {
    constructor(place, header, events) {
      this.header = header;
      this.events = events;
      this.length = events.length ? events[events.length - 1][0] : 0;
      this.screen = document.createElement("pre");
      this.screen.className = "screen";
      this.screen.tabIndex = 0;
      this.screen.setAttribute("aria-label", "Recorded terminal");
      this.button = document.createElement("button");
      this.button.type = "button";
      this.slider = document.createElement("input");
      Object.assign(this.slider, { type: "range", min: 0, max: this.length, step: "any", value: 0 });
      this.slider.setAttribute("aria-label", "Time");
      this.clock = document.createElement("span");
      this.speed = document.createElement("select");
      this.speed.setAttribute("aria-label", "Speed");
      SPEEDS.forEach((speed) => this.speed.append(new Option(speed + "×", speed)));
      const bar = document.createElement("div");
      bar.className = "bar";
      bar.append(this.button, this.slider, this.clock, this.speed);
      place.replaceChildren(this.screen, bar);
      place.hidden = false;
      this.button.addEventListener("click", () => this.playing ? this.stop() : this.play());
      this.slider.addEventListener("input", () => { this.stop(); this.seek(Number(this.slider.value)); });
      this.stop();
      this.seek(this.length);
    }

    seek(to) {
      if (!this.terminal || to < this.at) {
        this.terminal = new Terminal(this.header.width, this.header.height);
        this.next = 0;
      }
      while (this.next < this.events.length && this.events[this.next][0] <= to) {
        const [, kind, text] = this.events[this.next];
        if (kind === "o") this.terminal.feed(text);
        else if (kind === "r") this.terminal.resize(...text.split("x").map(Number));
        this.next += 1;
      }
      this.at = to;
      this.terminal.draw(this.screen);
      this.slider.value = to;
      const words = (seconds) => Math.floor(seconds / 60) + ":" + String(Math.floor(seconds % 60)).padStart(2, "0");
      this.clock.textContent = words(to) + " / " + words(this.length);
    }

    play() {
      if (this.at >= this.length) this.seek(0);
      this.playing = true;
      this.button.textContent = "Pause";
      let before = performance.now();
      const tick = (now) => {
        if (!this.playing) return;
        let to = this.at + (now - before) / 1000 * Number(this.speed.value);
        before = now;
        const next = this.events[this.next];
        if (next && next[0] - this.at > LONGEST_WAIT) to = Math.max(to, next[0] - LONGEST_WAIT);
        this.seek(Math.min(to, this.length));
        if (this.at >= this.length) this.stop(); else requestAnimationFrame(tick);
      };
      requestAnimationFrame(tick);
    }

    stop() {
      this.playing = false;
      this.button.textContent = "Play";
    }
  }

  async function start(place) {
    const answer = await fetch(place.dataset.cast);
    if (!answer.ok) return; // No terminal was asked for in this session.
    const lines = (await answer.text()).split("\n").filter(Boolean).map((line) => JSON.parse(line));
    const header = lines.shift();
    new Player(place, header, lines);
  }

  document.querySelectorAll("[data-cast]").forEach(start);
})();
