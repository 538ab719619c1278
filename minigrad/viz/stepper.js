"use strict";
// The page depends only on the current step and level of folding, not on how one got there.
// page.py makes the data and says what its keys of one letter mean.
(() => {
  const steppers = (window.minigradSteppers ||= []); // all on this page, each with its own script
  const PLAY = 900; // milliseconds per step

  function make(tag, kind, text) {
    const element = document.createElement(tag);
    if (kind) element.className = kind;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function cell(text, level) {
    const n = level.charCodeAt(0) - 106; // "j" is 0
    const kind = level === "x" ? "odd" : n && `${n > 0 ? "plus" : "minus"} w${Math.abs(n)}`;
    return make("td", kind, text);
  }

  function table(grid) {
    const rows = grid.r.map((line, i) => {
      const tr = make("tr");
      tr.append(...line.split(" ").map((text, j) => cell(text, grid.l[i][j])));
      if (grid.m[1]) tr.append(make("td", "more", "…"));
      return tr;
    });
    if (grid.m[0]) {
      const tr = make("tr");
      tr.append(make("td", "more", "⋮"));
      rows.push(tr);
    }
    const body = make("tbody");
    body.append(...rows);
    const all = make("table");
    all.append(body);
    return all;
  }

  function facts(grid) {
    const line = make("div", "facts", grid.n ? `${grid.n} ` : "");
    for (const [name, number] of grid.f) line.append(`${name} `, make("b", "", number), "  ");
    return line;
  }

  function figure(grid, caption, role) {
    const box = make("figure", role);
    const head = make("figcaption", "", `${caption} `);
    head.append(make("span", "", grid.s));
    box.append(head);
    if (grid.f.length || grid.n) box.append(facts(grid));
    grid.table ||= grid.r.length ? table(grid) : null; // built once, then copied
    if (grid.table) box.append(grid.table.cloneNode(true));
    return box;
  }

  function start(root) {
    const find = (selector) => root.querySelector(selector);
    const data = JSON.parse(find(".data").textContent);
    const pictures = [...root.querySelectorAll(".picture")];
    const formulas = [...find(".formulas").children];
    const [slider, output, dialog, pane] = ["input", "output", "dialog", ".graph"].map(find);
    const last = data.steps.length - 1;
    const key = steppers.length ? `step${steppers.length + 1}` : "step"; // in the address
    let [step, level, timer, pending] = [0, 0, 0, 0];

    const parts = pictures.map((picture) => {
      const numbered = (kind) => {
        const found = [];
        for (const g of picture.querySelectorAll(kind)) found[g.dataset.i] = g;
        return found;
      };
      return { picture, svg: picture.querySelector("svg"), cards: numbered(".node"),
               edges: numbered(".edge") };
    });

    // --- the view -------------------------------------------------------------------------------

    function unit(i) {
      // [first step, last step, story]: step i, or the steps inside a folded card around it
      return data.levels[level].units.find(([from, to]) => from <= i && i <= to) || [i, i, i];
    }

    function block([kind, ...content]) {
      if (kind === "f") {
        const line = make("div", "block formula");
        line.append(formulas[content[0]].firstElementChild.cloneNode(true));
        if (content[1]) line.append(make("span", "legend", content[1]));
        return line;
      }
      const line = { n: "numbers", o: "note", w: "note wrong" }[kind];
      if (line) return make("div", `block ${line}`, content[0]);
      const row = make("div", "block row");
      for (const item of content[0]) {
        if (typeof item === "string") row.append(make("span", "sign", item));
        else row.append(figure(data.grids[item[1]], item[0], item[2]));
      }
      return row;
    }

    function state(card, now) {
      // what a card says of its gradient after step `now`
      const arrived = card.g.filter((i) => i <= now).length;
      if (!card.g.length) return "no gradient";
      if (!arrived) return "gradient: none yet";
      if (card.s) return "gradient: seed";
      const [head, end] = card.g.length < 100 ? ["gradient: ", ""] : ["", " paths"]; // to fit
      if (arrived < card.g.length) return `${head}${arrived} of ${card.g.length}${end}`;
      return arrived === 1 || card.o > 1 ? "gradient: done" : `${head}sum of ${arrived}${end}`;
    }

    function roles(from, to) {
      // the cards that take part in the steps from .. to, each with its role
      const cards = data.levels[level].cards;
      const found = new Map();
      for (let i = from; i <= to; i++) {
        const [value, into] = data.steps[i];
        if (i < data.seed) for (const x of data.inputs[value]) found.set(cards[x], "operand");
        else if (into !== undefined) {
          if (!found.has(cards[value])) found.set(cards[value], "arriving");
          if (from === to || cards[into] !== cards[value]) found.set(cards[into], "gradient");
        } else found.set(cards[value], "gradient");
      }
      if (to < data.seed) found.set(cards[data.steps[to][0]], "result");
      return found;
    }

    function assign(element, kind) {
      if (element.getAttribute("class") !== kind) element.setAttribute("class", kind);
    }

    function paint(from, to) {
      const view = data.levels[level];
      const { cards, edges } = parts[view.picture];
      const marked = roles(from, to);
      view.marks.forEach((card, i) => {
        const touched = card.g.some((g) => g <= to) ? " touched" : "";
        const future = card.d > to ? " future" : "";
        assign(cards[i], `node ${marked.get(i) || ""}${touched}${future}`);
        const text = cards[i].querySelector(".state");
        const words = text && state(card, to);
        if (text && text.textContent !== words) text.textContent = words;
      });
      view.edges.forEach((edge, i) => {
        const within = (n) => from <= n && n <= to;
        const kind = [
          "edge",
          edge.f.some(within) && "used",
          edge.f[0] > to && "future",
          edge.b.some((n) => n <= to) && "passed",
          edge.b.some(within) && "passing",
        ];
        assign(edges[i], kind.filter(Boolean).join(" "));
      });
      return marked;
    }

    function reveal(marked) {
      // scroll the pane, never the page
      const main = [...marked].reverse().find(([, role]) => role === "result" || role === "gradient");
      const box = main && parts[data.levels[level].picture].cards[main[0]].getBoundingClientRect();
      if (!box || !pane.clientHeight) return;
      const view = pane.getBoundingClientRect();
      const [x, y] = [(box.left + box.right - view.left - view.right) / 2,
                      (box.top + box.bottom - view.top - view.bottom) / 2];
      if (Math.abs(y) > view.height / 2 - box.height) pane.scrollTop += y;
      if (Math.abs(x) > Math.max(view.width - box.width, 0) / 2) pane.scrollLeft += x;
    }

    function show() {
      const [from, to, story] = unit(step);
      const told = data.stories[story];
      const count = from === to ? `${to + 1}` : `${from + 1}–${to + 1}`;
      root.classList.toggle("backward", to >= data.seed);
      find(".where").textContent = [told.k, ...told.w].join(" › ");
      find(".panel h2").textContent = told.t;
      find(".say").textContent = `Step ${count} of ${last + 1}, ${told.k}: ${told.y}`;
      find(".blocks").replaceChildren(...told.b.map(block));
      slider.value = to + 1;
      slider.setAttribute("aria-valuetext", `step ${count} of ${last + 1}: ${told.y}`);
      output.textContent = `${count} / ${last + 1}`;
      parts.forEach(({ picture }, i) => { picture.hidden = i !== data.levels[level].picture; });
      reveal(paint(from, to));
    }

    function fit() {
      // shrink a picture that is a little too large, but keep its 12 px text above 9 px
      for (const { svg } of parts) {
        const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
        const room = Math.min((pane.clientWidth - 20) / width, (pane.clientHeight - 20) / height);
        const scale = Math.min(1.5, Math.max(0.8, room));
        svg.setAttribute("width", Math.round(width * scale));
        svg.setAttribute("height", Math.round(height * scale));
      }
    }

    // --- moving ---------------------------------------------------------------------------------

    function go(i) {
      step = Math.max(0, Math.min(last, i)); // any step inside a folded card shows the whole unit
      remember();
      show();
    }

    function remember() {
      window.clearTimeout(pending); // a browser refuses an address that changes too often
      pending = window.setTimeout(write, 150);
    }

    function write() {
      const anchor = new URLSearchParams(window.location.hash.slice(1));
      anchor.set(key, step + 1);
      try {
        window.history.replaceState(null, "", `#${anchor}`);
      } catch {
        // a page inside an iframe's srcdoc has no address of its own
      }
    }

    function recall() {
      const number = new URLSearchParams(window.location.hash.slice(1)).get(key);
      return number && /^\d+$/.test(number) ? Number(number) - 1 : 0;
    }

    function pause() {
      window.clearInterval(timer);
      timer = 0;
      find("[data-do=play]").textContent = "▷";
    }

    function play() {
      if (timer) return pause();
      if (unit(step)[1] === last) go(0);
      find("[data-do=play]").textContent = "‖";
      timer = window.setInterval(() => {
        if (unit(step)[1] === last) pause();
        else go(unit(step)[1] + 1);
      }, PLAY);
    }

    function fold() {
      level = (level + 1) % data.levels.length;
      show();
    }

    const actions = {
      first: () => go(0),
      last: () => go(last),
      next: () => go(unit(step)[1] + 1),
      back: () => go(unit(step)[0] - 1),
      seed: () => go(data.seed),
      help: () => (dialog.open ? dialog.close() : dialog.showModal()),
      close: () => {},
      play,
      fold,
    };
    const keys = {
      ArrowRight: "next", l: "next", ArrowLeft: "back", h: "back", Home: "first", End: "last",
      " ": "play", b: "seed", c: "fold", "?": "help",
    };

    function act(name) {
      if (name !== "play" && name !== "fold" && name !== "help") pause();
      actions[name]();
    }

    function visit(event) {
      // a click on an edge or a card: go to the next of the steps that are about it
      const group = event.target.closest(".node, .edge");
      if (!group) return;
      pause();
      const view = data.levels[level];
      if (group.matches(".edge")) {
        const edge = view.edges[group.dataset.i];
        return go(edge.b.length ? edge.b[edge.b.length - 1] : edge.f[0]);
      }
      const card = view.marks[group.dataset.i];
      const stops = [card.d, card.g[card.g.length - 1], card.b].filter((i) => i >= 0);
      stops.sort((a, b) => a - b);
      const [from, to] = unit(step);
      const here = stops.findIndex((i) => from <= i && i <= to);
      if (stops.length) go(stops[(here + 1) % stops.length]);
    }

    root.addEventListener("click", (event) => {
      const button = event.target.closest("[data-do]");
      if (!button) return;
      if (event.detail) button.blur(); // after a click with a pointer, Space plays
      act(button.dataset.do);
    });
    pane.addEventListener("click", visit);
    slider.addEventListener("input", () => { pause(); go(Number(slider.value) - 1); });
    window.addEventListener("resize", () => { fit(); show(); });
    window.addEventListener("hashchange", () => go(recall()));
    root.addEventListener("pointerdown", () => { steppers.active = stepper; });
    root.addEventListener("focusin", () => { steppers.active = stepper; });
    const stepper = {
      press(event) {
        const name = keys[event.key];
        const modified = event.ctrlKey || event.altKey || event.metaKey;
        // Space presses a button that was reached by Tab, as on any page
        const onButton = event.key === " " && event.target.matches("button:focus-visible");
        if (!name || modified || onButton || (dialog.open && name !== "help")) return;
        event.preventDefault();
        act(name);
      },
    };
    steppers.push(stepper);
    steppers.active = steppers.active || stepper;
    root.dataset.live = "";
    fit();
    step = Math.max(0, Math.min(last, recall()));
    show();
  }

  if (!steppers.length) {
    document.addEventListener("keydown", (event) => steppers.active?.press(event));
  }
  for (const root of document.querySelectorAll(".mg:not([data-live])")) start(root);
})();
