(() => {
  const head = JSON.parse(byId("head").textContent);
  const LAST = head.sides.length - 1, KEPT_BLOCKS = 12;
  const isNarrow = matchMedia("(max-width: 760px)");
  const list = byId("list"), tall = byId("tall"), query = byId("query");
  let task = null, selected = -1, turn = 0;

  // A task that one side alone answered has that side alone.
  const labelOf = (side) => head.sides[LAST - task.main + side];

  // What is right: all of a metric from 0 to 1, or nothing of one where less is better.
  const valueOf = (column, side, doc) => (column.values[side] ? column.values[side][doc] : null);
  const isRight = (side, doc) => {
    const column = task.columns[task.decides];
    const value = column ? valueOf(column, side, doc) : null;
    if (value === null) return null;
    return column.better === false ? value <= 0 : value >= 1;
  };
  const other = (doc) => (task.isPair ? isRight(0, doc) : null);
  const isFlip = (doc) => other(doc) !== null && isRight(task.main, doc) !== null && other(doc) !== isRight(task.main, doc);
  const isChanged = (doc) => task.changed[task.filter][doc] === "1";
  const gain = (doc) => {
    const column = task.columns[task.decides ?? 0];
    const values = column && task.isPair ? [valueOf(column, 0, doc), valueOf(column, task.main, doc)] : [null, null];
    return values.includes(null) ? 0 : (values[1] - values[0]) * (column.better === false ? -1 : 1);
  };
  const KINDS = [
    ["all", "all", () => true, () => true],
    ["flips", "flips", isFlip, () => task.isPair && task.decides !== null],
    ["lost", "right → wrong", (doc) => isFlip(doc) && other(doc), () => task.isPair && task.decides !== null],
    ["won", "wrong → right", (doc) => isFlip(doc) && !other(doc), () => task.isPair && task.decides !== null],
    ["changed", "answer changed", isChanged, () => task.isPair],
    ["better", "score better", (doc) => gain(doc) > 0, () => task.isPair && task.columns.length],
    ["worse", "score worse", (doc) => gain(doc) < 0, () => task.isPair && task.columns.length],
    ["wrong", LAST ? `wrong by ${head.sides[LAST]}` : "wrong", (doc) => isRight(task.main, doc) === false, () => task.decides !== null],
    ["right", LAST ? `right by ${head.sides[LAST]}` : "right", (doc) => isRight(task.main, doc) === true, () => task.decides !== null],
  ];
  const kindOf = (name) => KINDS.find((kind) => kind[0] === name);

  const sign = (right) => (right === null ? "·" : right ? "✓" : "✗");
  const markOf = (doc) => {
    const right = isRight(task.main, doc), name = right === null ? "" : right ? " right" : " wrong";
    const text = task.decides === null ? "" : task.isPair ? `${sign(other(doc))}→${sign(right)}` : sign(right);
    const made = element("span", task.isPair && !isFlip(doc) ? "mark sub" : `mark${name}`, text + (isFlip(doc) ? (right ? " ▲" : " ▼") : isChanged(doc) ? " ≠" : ""));
    const said = { true: "right", false: "wrong", null: "not told" };
    made.title = task.isPair ? `${said[other(doc)]}, then ${said[right]}${isChanged(doc) ? ", another answer" : ""}` : said[right];
    return made;
  };
  const valueText = (column, doc) => {
    const values = column.values.map((side) => short(side[doc], column.values.length > 1 ? 3 : 4));
    return values.length > 1 && values[0] !== values[1] ? values.join(" → ") : values[values.length - 1];
  };
  const previews = (side, doc) => task.sides[side][0].filters[task.filter]?.previews[doc] ?? "";
  const rowElement = (doc, place) => {
    const row = element("div", "row");
    row.id = `d${doc}`;
    row.dataset.doc = doc;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(doc === selected));
    row.setAttribute("aria-posinset", String(place + 1));
    row.setAttribute("aria-setsize", String(task.found.length));
    row.append(element("span", "id", String(task.ids[doc])), markOf(doc), foreign(task.questions[doc], "question"));
    for (const side of task.shownSides) row.append(foreign(previews(side, doc), "answer"));
    for (const column of task.shown) row.append(element("span", "value", valueText(task.columns[column], doc)));
    row.style.gridTemplateColumns = task.template;
    row.style.top = `${place * task.height}px`;
    return row;
  };
  const draw = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / task.height) - 5);
    const last = Math.min(task.found.length, first + Math.ceil(list.clientHeight / task.height) + 10);
    const rows = [];
    for (let place = first; place < last; place++) rows.push(rowElement(task.found[place], place));
    if (!task.found.length) rows.push(element("p", "empty", "No document fits."));
    tall.replaceChildren(...rows);
    if (byId(`d${selected}`)) list.setAttribute("aria-activedescendant", `d${selected}`);
    else list.removeAttribute("aria-activedescendant");
  };
  const layOut = () => {
    task.height = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
    task.shownSides = isNarrow.matches || !task.isPair ? [task.main] : [0, task.main];
    const wide = task.isPair ? 104 : 84, sides = task.shownSides.length;
    const width = 190 + 120 + 72 * sides + (wide + 8) * task.shown.length;
    const columns = `44px 62px minmax(120px,2fr) repeat(${sides},minmax(64px,1fr)) repeat(${Math.max(1, task.shown.length)},${wide}px)`;
    task.template = columns;
    task.width = isNarrow.matches ? "" : `${width}px`;
    tall.style.minWidth = task.width;
    tall.style.height = `${Math.max(1, task.found.length) * task.height}px`;
  };

  const headButton = (text, name, sort) => {
    const button = element("button", name, foreign(text));
    button.type = "button";
    button.title = `sort by ${text}`;
    if (task.sort.by === sort) button.dataset.way = task.sort.isDescending ? "down" : "up";
    button.addEventListener("click", () => {
      const isSame = task.sort.by === sort;
      task.sort = { by: sort, isDescending: isSame ? !task.sort.isDescending : sort !== "id" };
      sorted();
      apply();
    });
    return button;
  };
  const heads = () => {
    const answers = task.shownSides.map((side) => Object.assign(element("span", "sub", foreign(labelOf(side))), { title: labelOf(side) }));
    const row = element("div", "row");
    row.style.gridTemplateColumns = task.template;
    row.style.minWidth = task.width;
    byId("heads").replaceChildren(row);
    row.append(
      headButton("no.", "id", "id"),
      headButton(task.isPair ? "flips" : "", "", "flips"),
      element("span", "sub", "question"), ...answers,
      ...task.shown.map((column) => headButton(task.columns[column].name, "value", column)),
    );
  };
  // Flips first, what was lost before what was won; then other scores, then other answers.
  const rank = (doc) => (isFlip(doc) ? (other(doc) ? 0 : 1) : gain(doc) ? 2 : isChanged(doc) ? 3 : 4);
  const sorted = () => {
    const { by, isDescending } = task.sort, docs = task.ids.map((_, doc) => doc);
    const keyOf = (doc) => {
      if (by === "id") return task.ids[doc];
      if (by === "flips") return task.isPair ? -rank(doc) : isRight(task.main, doc) === null ? null : -Number(isRight(task.main, doc));
      const column = task.columns[by], now = valueOf(column, task.main, doc);
      const then = task.isPair ? valueOf(column, 0, doc) : 0;
      return now === null || then === null ? null : now - then;
    };
    const keys = docs.map(keyOf);
    task.order = docs.sort((a, b) => {
      if (keys[a] === null || keys[b] === null) return (keys[a] === null) - (keys[b] === null) || a - b;
      return (isDescending ? keys[b] - keys[a] : keys[a] - keys[b]) || a - b;
    });
  };

  const apply = () => {
    const text = query.value.trim().toLowerCase(), words = text.split(/\s+/).filter(Boolean);
    const fits = kindOf(byId("show").value)[2], number = /^#\d+$/.test(text) ? Number(text.slice(1)) : null;
    task.found = task.order.filter((doc) => fits(doc) && (
      number === null ? words.every((word) => task.texts[doc].includes(word)) : task.ids[doc] === number
    ));
    const all = plural(task.ids.length, "document");
    const said = task.found.length === task.ids.length ? all : `${task.found.length.toLocaleString("en")} of ${all}`;
    const isWaiting = words.length && task.read < 1;
    byId("count").textContent = said + (isWaiting ? `, ${Math.floor(100 * task.read)} % of the texts read` : "");
    layOut();
    heads();
    list.scrollTop = 0;
    draw();
    return task.found;
  };

  // Texts: blocks of rows, unpacked when wanted; those read last are kept.
  const block = (number) => {
    const kept = task.kept.get(number) || unpack(number);
    task.kept.delete(number);
    task.kept.set(number, kept);
    if (task.kept.size > KEPT_BLOCKS) task.kept.delete(task.kept.keys().next().value);
    return kept;
  };
  const rowOf = async (filter, doc) => {
    const row = !filter ? -1 : filter.rows ? filter.rows[doc] : doc;
    if (row < 0) return null;
    let place = filter.starts.length - 1;
    while (filter.starts[place] > row) place--;
    return (await block(filter.blocks[place]))[row - filter.starts[place]] || null;
  };
  const wordsIn = (value) => (
    typeof value === "string" ? value : value && typeof value === "object" ? Object.values(value).map(wordsIn).join(" ") : ""
  );
  // What all prompts begin with, such as examples, tells no document from another, so it is not searched.
  const sharedStart = (prompts) => {
    let shared = prompts[0] || "";
    for (const prompt of prompts) while (!prompt.startsWith(shared)) shared = shared.slice(0, Math.floor(shared.length * 0.9));
    return prompts.length > 1 && shared.length > 100 ? shared.length : 0;
  };
  const readTexts = async (mine) => {
    const runs = mine.sides.flatMap((side, number) => side.map((run) => [number === mine.main, run]));
    const filters = runs.flatMap(([isMain, run]) => run.filters.filter(Boolean).map((filter) => [isMain, filter]));
    const total = filters.reduce((sum, [, filter]) => sum + filter.blocks.length, 0);
    const parts = mine.ids.map((_, doc) => [mine.texts[doc]]), prompts = mine.ids.map(() => "");
    let done = 0;
    for (const [isMain, filter] of filters) {
      const docs = [];
      mine.ids.forEach((_, doc) => { docs[filter.rows ? filter.rows[doc] : doc] = doc; });
      for (let place = 0; place < filter.blocks.length; place++) {
        const rows = await unpack(filter.blocks[place]);
        if (task !== mine) return;
        rows.forEach(({ p, t, d, m, ...answers }, n) => {
          const doc = docs[filter.starts[place] + n];
          if (doc === undefined) return;
          if (isMain && p) prompts[doc] = p.toLowerCase();
          parts[doc].push(wordsIn(isMain ? [answers, t, d] : answers).toLowerCase());
        });
        mine.read = ++done / total;
      }
    }
    const shared = sharedStart(prompts);
    for (let doc = 0; doc < parts.length; doc++) {
      mine.texts[doc] = [...parts[doc], prompts[doc].slice(shared)].join(" ");
      if (doc % 1000 === 999) await new Promise((next) => setTimeout(next));
      if (task !== mine) return;
    }
    mine.read = 1;
    if (query.value.trim()) apply();
    document.documentElement.dataset.read = mine.name;
  };

  // One document.
  const bar = (doc) => {
    const link = element("a", "title", foreign(task.name), ` · document ${task.ids[doc]}`);
    link.href = addressOf(doc);
    link.title = "address of this document";
    const button = (text, said, act, className) => {
      const made = Object.assign(element("button", className, text), { type: "button", title: said, ariaLabel: said });
      made.addEventListener("click", act);
      return made;
    };
    const ends = element("span", "ends", button("‹", "previous document (k)", () => step(-1)), button("›", "next document (j)", () => step(1)));
    const back = button("‹ List", "back to the list", () => byId("document").classList.remove("open"), "back");
    return element("div", "bar", back, link, markOf(doc), ends);
  };
  const addressOf = (doc) => `#${encodeURIComponent(task.name)}/${task.ids[doc]}`;
  const show = async (doc) => {
    const mine = task, own = ++turn;
    const sides = await Promise.all(mine.sides.map((runs) => Promise.all(
      runs.map((run) => Promise.all(run.filters.map((filter) => rowOf(filter, doc)))),
    )));
    if (own !== turn || task !== mine) return;
    const main = sides[sides.length - 1][0].filter(Boolean)[0] || {}, then = sides.length > 1 ? sides[0][0].filter(Boolean)[0] : null;
    const content = [bar(doc)];
    if (then && then.p !== main.p) {
      content.push(...section(`Prompt of ${labelOf(0)}`, textBlock(marked(then.p || "", main.p || "", true))));
      content.push(...section(`Prompt of ${labelOf(1)}`, textBlock(marked(main.p || "", then.p || "", false))));
    } else if (main.q) content.push(...tokenBlocks(main.q));
    else content.push(...section("Prompt", textBlock(main.p || "(empty)"), element("p", "sub", head.tokens)));
    if (main.d) content.push(...section("Of the document, not in the prompt", pairsList(main.d)));
    if (main.t) content.push(...section("Target", textBlock(main.t)));
    const both = element("div", "both");
    sides.forEach((runs, side) => {
      const isFirst = sides.length > 1 && side === 0, opposite = sides.length > 1 ? sides[sides.length - 1 - side] : null;
        const made = element("section", "side", element("h2", "", foreign(labelOf(side))));
      runs.forEach((rows, n) => {
        if (runs.length > 1) made.append(element("h3", "", `Seed ${mine.sides[side][n].seed}`));
        made.append(...answerOf(mine.filters, rows, opposite && runs.length === opposite.length ? opposite[n] : null, isFirst));
      });
      both.append(made);
    });
    content.push(both);
    byId("document").replaceChildren(...content);
    byId("document").scrollTop = 0;
    document.documentElement.dataset.shown = addressOf(doc);
  };
  const select = (doc, opens = true) => {
    selected = doc;
    const place = task.found.indexOf(doc);
    const top = place * task.height;
    if (place >= 0 && (top < list.scrollTop || top + task.height > list.scrollTop + list.clientHeight)) {
      list.scrollTop = top - list.clientHeight / 2;
    }
    draw();
    if (opens) {
      byId("document").classList.add("open");
      history.replaceState(null, "", addressOf(doc));
    }
    return show(doc);
  };
  const seek = (way, fits, otherwise) => {
    let place = task.found.indexOf(selected) + way;
    while (place >= 0 && place < task.found.length && !fits(task.found[place])) place += way;
    if (place >= 0 && place < task.found.length) select(task.found[place]);
    else byId("count").textContent = otherwise;
  };
  const step = (way) => seek(way, () => true, way > 0 ? "this is the last document" : "this is the first document");

  // Tasks.
  const option = (value, text) => Object.assign(element("option", "", text), { value });
  const kinds = () => {
    const before = byId("show").value;
    const there = KINDS.filter(([, , , isThere]) => isThere());
    byId("show").replaceChildren(...there.map(([name, text, fits]) => (
      option(name, `${text} (${task.ids.reduce((sum, _, doc) => sum + Boolean(fits(doc)), 0).toLocaleString("en")})`)
    )));
    byId("show").value = there.some(([name]) => name === before) ? before : "all";
  };
  const decide = (column) => {
    task.decides = column;
    const filter = column === null ? 0 : task.filters.indexOf(task.columns[column].filter);
    task.filter = Math.max(0, filter);
    kinds();
    sorted();
  };
  const chooser = () => {
    byId("columns").replaceChildren(...task.columns.map((column, n) => {
      const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: task.shown.includes(n) });
      box.addEventListener("change", () => {
        task.shown = task.columns.map((_, one) => one).filter((one) => (one === n ? box.checked : task.shown.includes(one)));
        apply();
      });
      return element("label", "", box, " ", foreign(column.name));
    }));
    const shares = task.columns.map((_, n) => n).filter((n) => task.columns[n].isShare);
    byId("decides").replaceChildren(...shares.map((n) => option(n, task.columns[n].name)));
    if (task.decides !== null) byId("decides").value = task.decides;
    byId("deciding").hidden = shares.length < 2;
    byId("choose").hidden = task.columns.length < 2;
  };
  const open = async (number, id = null) => {
    const told = head.tasks[number];
    byId("task").value = number;
    byId("said").hidden = !told.notes.length;
    byId("said").replaceChildren(foreign(told.notes.join(" ")));
    const isEmpty = told.island === null;
    byId("bench").classList.toggle("bare", isEmpty);
    if (isEmpty) {
      task = null;
      byId("count").textContent = "no documents";
      history.replaceState(null, "", `#${encodeURIComponent(told.name)}`);
      return;
    }
    const needed = byId(`i${told.island}`).type;
    if (needed === "application/gzip" && !window.DecompressionStream) {
      byId("said").hidden = false;
      byId("said").textContent = "This browser cannot unpack the data of the page (it has no DecompressionStream); open it in one of 2023 or later.";
      byId("bench").classList.add("bare");
      return;
    }
    const data = await unpack(told.island);
    task = { ...told, ...data, number, kept: new Map(), read: 0, found: [], isPair: data.sides.length > 1, main: data.sides.length - 1 };
    task.texts = task.ids.map((_, doc) => task.questions[doc].toLowerCase());
    const first = task.decides === null ? [] : [task.decides];
    const rest = task.columns.map((_, n) => n).filter((n) => n !== task.decides);
    task.shown = [...first, ...rest].slice(0, task.isPair ? 2 : 3).sort((a, b) => a - b);
    task.sort = task.isPair ? { by: "flips", isDescending: true } : { by: "id", isDescending: false };
    decide(task.decides);
    chooser();
    apply();
    const doc = id === null ? -1 : task.ids.indexOf(id);
    if (id !== null && doc < 0) byId("count").textContent = `there is no document ${id}`;
    if (task.ids.length) await select(doc >= 0 ? doc : task.found[0] ?? 0, doc >= 0);
    document.documentElement.dataset.opened = task.name;
    readTexts(task);
  };
  const asked = () => {
    const text = location.hash.slice(1), cut = text.lastIndexOf("/");
    const decoded = (part) => { try { return decodeURIComponent(part); } catch { return part; } };
    const named = (name) => head.tasks.findIndex((one) => one.name === decoded(name));
    const number = cut > 0 && /^\d+$/.test(text.slice(cut + 1)) ? named(text.slice(0, cut)) : -1;
    return number >= 0 ? [number, Number(text.slice(cut + 1))] : [named(text), null];
  };
  const follow = () => {
    const [number, id] = asked();
    if (number < 0) return false;
    if (task && task.number === number && id !== null && task.ids.includes(id)) {
      if (!task.found.includes(task.ids.indexOf(id))) { query.value = ""; byId("show").value = "all"; apply(); }
      select(task.ids.indexOf(id));
    } else open(number, id);
    byId("bench").scrollIntoView();
    return true;
  };

  const groups = new Map();
  head.tasks.forEach((one, number) => {
    const group = one.groups[0] || "";
    const text = `${one.name} (${one.docs.toLocaleString("en")})`;
    if (!groups.has(group)) groups.set(group, group ? Object.assign(element("optgroup", ""), { label: group }) : byId("task"));
    groups.get(group).append(option(number, text));
  });
  for (const [group, made] of groups) if (group) byId("task").append(made);
  byId("task").addEventListener("change", () => open(Number(byId("task").value)));
  byId("show").addEventListener("change", () => task && first(apply()));
  byId("decides").addEventListener("change", () => { decide(Number(byId("decides").value)); first(apply()); });
  const first = (found) => { if (found.length && !found.includes(selected)) select(found[0], false); };
  query.addEventListener("input", () => task && apply());
  list.addEventListener("scroll", () => { byId("heads").scrollLeft = list.scrollLeft; if (task) requestAnimationFrame(draw); });
  addEventListener("resize", () => { if (task) { layOut(); heads(); draw(); } });
  addEventListener("hashchange", follow);
  list.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) select(Number(row.dataset.doc));
  });
  byId("help").addEventListener("click", () => byId("keys").showModal());
  const KEYS = {
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1), Enter: () => select(selected),
    f: () => seek(1, isFlip, "no further flip"), F: () => seek(-1, isFlip, "no flip before this one"),
    w: () => seek(1, (doc) => isRight(task.main, doc) === false, "no further wrong document"),
    c: () => seek(1, isChanged, "no further changed answer"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
    if (event.key === "Escape") {
      if (document.activeElement === query) query.blur();
      else byId("document").classList.remove("open");
      return;
    }
    if (event.target.closest("input, select, summary, button, a") && !(event.key in KEYS && event.key.length === 1 && !event.target.closest("input, select"))) return;
    if (event.key === "/") query.focus();
    else if (event.key === "?") byId("keys").showModal();
    else if (event.key === "t" && head.tasks.length) open(((task ? task.number : 0) + 1) % head.tasks.length);
    else if (task && event.key in KEYS && task.found.length) KEYS[event.key]();
    else return;
    event.preventDefault();
  });
  if (!head.tasks.length) byId("bench").hidden = true;
  else if (!follow()) open(0);
})();
