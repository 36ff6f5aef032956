"use strict";
// Elements, islands, the words in which two texts differ, and what one run answered to a document.
const element = (name, className, ...children) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
};
const byId = (id) => document.getElementById(id);
const foreign = (text, className) => Object.assign(element("bdi", className, text), { dir: "auto" });
const plural = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
const short = (number, digits) => (number === null ? "–" : String(Number(number.toPrecision(digits))));

const unpack = async (number) => {
  const island = byId(`i${number}`);
  if (island.type === "application/json") return JSON.parse(island.textContent);
  const packed = Uint8Array.from(atob(island.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
};

const WORDS = /\s+|[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}]|[\p{L}\p{N}\p{M}_]+|[^]/gu;
const MOST_CELLS = 4e6;
// For each of two lists which of their words the other lacks, by their longest common sequence.
const lacking = (ours, theirs) => {
  let start = 0, end = 0;
  while (start < ours.length && start < theirs.length && ours[start] === theirs[start]) start++;
  const most = Math.min(ours.length, theirs.length) - start;
  while (end < most && ours[ours.length - 1 - end] === theirs[theirs.length - 1 - end]) end++;
  const a = ours.slice(start, ours.length - end), b = theirs.slice(start, theirs.length - end);
  const found = [ours, theirs].map((words) => words.map((_, n) => n >= start && n < words.length - end));
  if (!a.length || !b.length || a.length * b.length > MOST_CELLS) return found;
  const width = b.length + 1, table = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      table[i * width + j] = a[i] === b[j]
        ? table[(i + 1) * width + j + 1] + 1
        : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) {
      found[0][start + i++] = false;
      found[1][start + j++] = false;
    } else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
    else j++;
  }
  return found;
};
// The text of one of two sides, what the other lacks marked: struck through on the first, underlined on the second.
const marked = (text, other, isFirst) => {
  if (other === undefined || other === text) return [text];
  const words = text.match(WORDS) || [], others = other.match(WORDS) || [];
  const isOwn = (isFirst ? lacking(words, others) : lacking(others, words))[isFirst ? 0 : 1];
  const parts = [];
  words.forEach((word, n) => {
    if (parts.length && isOwn[n] === isOwn[n - 1]) parts[parts.length - 1] += word;
    else parts.push(word);
  });
  return parts.map((part, n) => ((n % 2 === 0) === isOwn[0] ? element(isFirst ? "del" : "ins", "", part) : part));
};

const section = (title, ...content) => [element("h3", "", title), ...content];
const textBlock = (parts, more = "") => {
  const made = element("pre", `long ${more}`, ...[parts].flat());
  made.dir = "auto";
  return made;
};
const pairsList = (pairs) => {
  const made = element("dl", "");
  for (const [name, value] of pairs) made.append(element("dt", "", foreign(name)), element("dd", "", foreign(value)));
  return made;
};
const tokenBlocks = (strips) => strips.flatMap(([title, tokens]) => section(
  title, textBlock(tokens.map(([text, said]) => Object.assign(element("span", "tok", text), { title: said })), "tokens"),
));
const choicesTable = (row) => {
  const body = element("tbody", "");
  row.c.forEach(([text, number, isGreedy], n) => {
    const said = [n === row.n && "chosen", n === row.g && "right", row.n === undefined && isGreedy && "the model’s own"].filter(Boolean);
    const line = element(
      "tr", n === row.n ? "chosen" : "", element("td", "", n === row.n ? "▸" : ""),
      element("td", "number", number === null ? "no number" : number.toFixed(3)), element("td", "", foreign(text)),
      element("td", n === row.g ? "right" : "sub", said.join(", ")),
    );
    body.append(line);
  });
  return element("table", "choices", body);
};
// What one run answered: the raw answer above what each filter made of it.
const answerOf = (filters, rows, others, isFirst) => {
  const [first] = rows.filter(Boolean), theirs = others && others.filter(Boolean)[0], made = [];
  if (!first) return [element("p", "muted", "This side has no answer to the document.")];
  if (first.c) made.push(...section(first.c.length > 1 ? "Choices, log-likelihoods" : "Log-likelihood", choicesTable(first)));
  (first.r || []).forEach((text, n) => made.push(...section(
    first.r.length > 1 ? `Raw answer ${n + 1}` : "Raw answer", textBlock(text ? marked(text, theirs?.r?.[n], isFirst) : "(empty)"),
  )));
  // Filters that made the same of it stand together.
  const alike = new Map(), metrics = [];
  rows.forEach((row, n) => {
    if (!row) return;
    const name = filters[n], made = JSON.stringify(row.f || []);
    if (row.f) alike.set(made, [...(alike.get(made) || []), n]);
    for (const [metric, value] of row.m || []) metrics.push([name === "none" ? metric : `${metric} (${name})`, value]);
  });
  for (const [text, numbers] of alike) {
    const names = numbers.map((n) => filters[n]).filter((name) => name !== "none");
    const title = names.length ? `Filter${names.length > 1 ? "s" : ""} ${names.join(", ")} made` : "Answer";
    if (first.r && text === JSON.stringify(first.r)) made.push(...section(names.length ? title : "Filters", element("p", "muted", "nothing else of it")));
    else rows[numbers[0]].f.forEach((one, i) => made.push(...section(
      title, textBlock(one ? marked(one, others?.[numbers[0]]?.f?.[i], isFirst) : "(empty)"),
    )));
  }
  if (metrics.length) made.push(...section("Metrics", pairsList(metrics)));
  if (first.x) {
    const parts = first.x.map((pairs) => element("div", "trace", pairsList(pairs)));
    made.push(...section("How the answer came about (its trace)", ...parts));
  }
  if (first.k) made.push(...tokenBlocks(first.k));
  return made;
};
