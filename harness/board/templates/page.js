"use strict";
(() => {
  const board = JSON.parse(document.getElementById("board").textContent);
  const NAMES = board.columns, METHOD = 1, MODEL = 2, WEIGHTS = 3, SCORE = 4, DIFFERENCE = 5, STEP = board.step;
  const element = (name, className, ...children) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };
  const foreign = (text, className) => {
    const made = element("bdi", className, text);
    made.dir = "auto";
    return made;
  };
  const byId = (id) => document.getElementById(id);
  const plural = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

  // Cells are [number or null, text, second line, class], as the page's own rows are written from.
  const cellsOf = (table, row) => {
    const [rank, score, difference] = table.rows[row][1][table.metric] || board.empty;
    const [method, model, weights, ...cost] = table.rows[row][0];
    return [rank, method, model, weights, score, difference, ...cost];
  };
  const sub = (text) => element("span", "sub", text);
  const plainCell = (cell, name) => {
    const made = element("td", cell[3] ? `${name} ${cell[3]}` : name, element("span", "main", cell[1]));
    if (cell[2]) made.append(" ", sub(cell[2]));
    return made;
  };
  const bdi = (text) => element("bdi", "", text);
  const rowElement = (table, row) => {
    const cells = cellsOf(table, row);
    const made = element("tr", cells[0][3] || "");
    made.dataset.row = row;
    const open = element("button", "open", bdi(cells[METHOD][1]));
    open.type = "button";
    const head = element("th", "method", open);
    head.scope = "row";
    if (cells[METHOD][2]) head.append(" ", sub(bdi(cells[METHOD][2])));
    head.append(" ", element("span", "sub narrow", bdi(cells[MODEL][1])));
    const model = element("td", "model", bdi(cells[MODEL][1]));
    if (cells[MODEL][2]) model.append(" ", sub(bdi(cells[MODEL][2])));
    made.append(plainCell(cells[0], NAMES[0]), head, model);
    for (let n = WEIGHTS; n < cells.length; n++) made.append(plainCell(cells[n], NAMES[n]));
    return made;
  };

  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const order = (table) => {
    const rows = table.rows.map((_, n) => n);
    const { column, descending } = table.sort;
    if (column === null) return rows;
    const isText = column === METHOD || column === MODEL || column === WEIGHTS;
    const keys = rows.map((row) => {
      const cell = cellsOf(table, row)[column];
      if (isText) return `${cell[1]} ${cell[2] || ""}`;
      return column === SCORE && cell[3] === "unranked" ? null : cell[0];
    });
    return rows.sort((a, b) => {
      if (keys[a] === null || keys[b] === null) return (keys[a] === null) - (keys[b] === null) || a - b;
      return (descending ? -1 : 1) * compare(keys[a], keys[b]) || a - b;
    });
  };

  const filter = { query: "", task: "", model: "", method: "", weights: "", sound: false };
  const prepare = (table) => {
    table.texts ||= table.rows.map(([[method, model, weights]]) => (
      `${method[1]} ${method[2] || ""} ${model[1]} ${model[2] || ""} ${weights[1]} ${weights[2] || ""}`.toLowerCase()
    ));
  };
  const matches = (table, row) => {
    const own = table.rows[row][0];
    if (filter.model && own[1][1] !== filter.model) return false;
    if (filter.method && own[0][1] !== filter.method) return false;
    if (filter.weights && own[2][1] !== filter.weights) return false;
    if (filter.sound && (table.rows[row][1][table.metric] || board.empty)[0][0] === null) return false;
    return filter.words.every((word) => table.texts[row].includes(word));
  };
  const render = (table) => {
    table.isStale = false;
    const shown = table.found.slice(0, table.most);
    table.body.replaceChildren(...shown.map((row) => rowElement(table, row)));
    table.more.hidden = shown.length === table.found.length;
    table.more.textContent = `Show more rows (${plural(table.found.length - shown.length, "row")} not shown)`;
  };
  const apply = () => {
    filter.words = filter.query.toLowerCase().split(/\s+/).filter(Boolean);
    let rows = 0, tables = 0, first = STEP; // a table that was hidden is not known to be near before the next frame
    for (const table of board.tables) {
      const isAsked = !filter.task || table.task === filter.task;
      prepare(table);
      table.found = isAsked ? table.order.filter((row) => matches(table, row)) : [];
      const isEmpty = !table.found.length;
      if (table.section.hidden !== isEmpty) table.section.hidden = isEmpty;
      if (isEmpty) continue;
      rows += table.found.length;
      tables += 1;
      const all = plural(table.rows.length, "row");
      const text = table.found.length === table.rows.length ? all : `${table.found.length.toLocaleString("en")} of ${all}`;
      if (table.matching.textContent !== text) table.matching.textContent = text;
      table.isStale = true;
      if (table.details.open && (table.isNear || first > 0)) {
        first -= table.found.length;
        render(table);
      }
    }
    byId("count").textContent = rows ? `${plural(rows, "row")} in ${plural(tables, "table")}` : "no row matches";
  };

  const marks = (table) => {
    table.section.querySelectorAll("thead th").forEach((head, column) => {
      if (table.sort.column === column) head.setAttribute("aria-sort", table.sort.descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  const resort = (table) => {
    table.order = order(table);
    const wanted = new Set(table.found);
    table.found = table.order.filter((row) => wanted.has(row));
    render(table);
    marks(table);
  };
  const byScore = (table) => {
    const sign = table.metrics[table.metric].sign;
    return sign ? { column: SCORE, descending: sign > 0 } : { column: null, descending: false };
  };
  const sortBy = (table, column) => {
    const isSame = table.sort.column === column;
    const first = column === SCORE || column === DIFFERENCE ? table.metrics[table.metric].sign >= 0 : false;
    table.sort = { column, descending: isSame ? !table.sort.descending : first };
    resort(table);
  };
  const choose = (table, metric) => {
    table.metric = metric;
    const { title, arrow } = table.metrics[metric];
    table.section.querySelector("caption").textContent = `${table.task}: ${title}`;
    table.section.querySelector("thead .score button").replaceChildren(bdi(title), ` ${arrow}`);
    for (const plots of table.section.querySelectorAll(".plots")) plots.hidden = Number(plots.dataset.metric) !== metric;
    table.sort = byScore(table);
    resort(table);
    if (filter.sound) apply();
  };

  const list = (pairs) => {
    const made = element("dl", "");
    for (const [name, value] of pairs) made.append(element("dt", "", bdi(name)), element("dd", "", foreign(value)));
    return made;
  };
  const grid = (heads, rows) => {
    const top = element("tr", "", ...heads.map((text) => Object.assign(element("th", "", text), { scope: "col" })));
    const body = rows.map((cells) => element("tr", "", ...cells.map((cell) => element("td", "", cell))));
    return element("div", "scroll", element("table", "", element("thead", "", top), element("tbody", "", ...body)));
  };
  const block = (text) => element("pre", "", foreign(text));
  const commandBlock = (text) => {
    const copy = element("button", "copy", "Copy");
    copy.type = "button";
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch {
        copy.textContent = "Select the text above";
      }
    });
    return navigator.clipboard ? [block(text), copy] : [block(text)];
  };
  const metricRows = (table, row) => table.rows[row][1].flatMap((cells, n) => {
    if (!cells) return [];
    const seeds = (board.seeds[table.rows[row][2]] || [])[n] || [];
    const said = seeds.map(([seed, value]) => `${seed}: ${value}`).join(", ");
    const lines = (cell) => (cell[2] ? element("span", "", cell[1], sub(cell[2])) : cell[1]);
    return [[bdi(`${table.metrics[n].title} ${table.metrics[n].arrow}`), cells[0][1], lines(cells[1]), lines(cells[2]), bdi(said)]];
  });
  const example = ([documentName, prompt, answer, target, scores]) => element(
    "div", "example",
    element("h4", "", "Document ", bdi(documentName), scores ? sub(bdi(scores)) : ""),
    element("span", "sub", "Prompt"), block(prompt),
    element("span", "sub", "Answer"), block(answer),
    element("span", "sub", "Target"), block(target),
  );
  const section = (title, ...content) => [element("h3", "", title), ...content];
  const showDetails = (table, row) => {
    const cells = cellsOf(table, row);
    const detail = board.details[table.rows[row][2]];
    const pool = (reference) => board.pool[reference];
    const said = cells[METHOD][2] ? [" · ", bdi(cells[METHOD][2])] : [];
    const title = element("h2", "", bdi(cells[METHOD][1]), ...said, " on ", bdi(table.task));
    title.id = "details-title";
    const content = [title, ...section("Scores", grid(["metric", "rank", "score", "difference", "by seed"], metricRows(table, row)))];
    for (const [label, reference] of detail.commands) content.push(...section(label, ...commandBlock(pool(reference))));
    if (pool(detail.options).length) content.push(...section("Options", list(pool(detail.options))));
    if (detail.examples.length) content.push(...section("Sample answers", ...detail.examples.map(example)));
    else content.push(...section("Sample answers", element("p", "muted", board.noExamples)));
    content.push(...section("Model", list(pool(detail.model))), ...section("Cost", list(pool(detail.cost))));
    for (const [label, reference] of detail.environments) content.push(...section(label, list(pool(reference))));
    byId("details-content").replaceChildren(...content);
    byId("details").showModal();
    byId("details").scrollTop = 0;
  };

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const table = board.tables[entry.target.dataset.table];
      table.isNear = entry.isIntersecting;
      if (table.isNear && table.isStale && table.details.open) render(table);
    }
  }, { rootMargin: "600px" });
  board.tables.forEach((table, number) => {
    const own = byId(table.id);
    Object.assign(table, {
      section: own, details: own.querySelector("details"), body: own.querySelector("tbody"), more: own.querySelector(".more"),
      matching: own.querySelector(".matching"), metric: 0, most: STEP, order: table.rows.map((_, n) => n), isNear: false,
      isStale: table.rows.length > own.querySelectorAll("tbody tr").length,
    });
    table.found = table.order;
    table.sort = byScore(table);
    own.dataset.table = number;
    watcher.observe(own);
    table.details.addEventListener("toggle", () => {
      if (table.details.open && table.isStale) render(table);
    });
  });
  (window.requestIdleCallback || setTimeout)(() => board.tables.forEach(prepare));
  const tableOf = (target) => board.tables[target.closest("section.table").dataset.table];
  byId("tables").addEventListener("click", (event) => {
    const head = event.target.closest("thead button");
    if (head) return sortBy(tableOf(head), Number(head.dataset.column));
    const more = event.target.closest(".more");
    if (more) {
      const table = tableOf(more);
      const first = table.most;
      table.most += 4 * STEP;
      render(table);
      table.body.rows[first]?.querySelector(".open").focus();
      return undefined;
    }
    const row = event.target.closest("tbody tr");
    if (row && !String(getSelection())) showDetails(tableOf(row), Number(row.dataset.row));
    return undefined;
  });
  byId("tables").addEventListener("change", (event) => {
    if (event.target.matches(".metric")) choose(tableOf(event.target), Number(event.target.value));
  });
  const openNamed = () => {
    const table = board.tables.find((one) => one.id === location.hash.slice(1));
    if (!table) return;
    table.details.open = true;
    table.section.scrollIntoView();
  };
  addEventListener("hashchange", openNamed);
  openNamed();
  byId("details").addEventListener("click", (event) => {
    if (event.target === byId("details")) byId("details").close();
  });
  for (const name of ["query", "task", "model", "method", "weights"]) {
    byId(name)?.addEventListener("input", () => {
      filter[name] = byId(name).value;
      apply();
    });
  }
  byId("sound")?.addEventListener("change", () => {
    filter.sound = byId("sound").checked;
    apply();
  });
})();
