"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  // The numbers are at the end: the token before them may hold anything.
  const number = (title, letter) => {
    const numbers = title.match(/( [spqbdr]=[-\d.?/≥]+)*$/)[0];
    const found = numbers.match(new RegExp(".* " + letter + "=(-?[\\d.]+)(?:/(\\d+))?"));
    return found && (found[2] ? found[1] / found[2] : Number(found[1]));
  };
  const clamp = (weight) => Math.min(1, Math.max(0, weight));
  const scale = Number(document.querySelector("main").dataset.scale);
  const LETTERS = {contrastive: "s", positive: "p", negative: "q", probability: "b", log_ratio: "d", rate: "r"};
  const colour = () => {
    const name = at("by").value;
    for (const token of document.querySelectorAll(".response .text i")) {
      const value = number(token.title, LETTERS[name]);
      const weight = value === null ? 0 : clamp(name === "log_ratio" ? -value / scale : 1 - value);
      token.className = token.className.replace(/\bw\d+ ?/, "");
      const level = Math.round(10 * weight);
      if (level) token.className = ("w" + level + " " + token.className).trim();
    }
  };
  const filter = () => {
    const kind = at("kind") ? at("kind").value : "", side = at("side").value;
    for (const pair of document.querySelectorAll("article")) pair.hidden = kind !== "" && pair.dataset.kind !== kind;
    for (const response of document.querySelectorAll(".response")) response.hidden = side !== "" && response.dataset.side !== side;
  };
  document.querySelector(".toolbar").hidden = false;
  if (at("by")) at("by").addEventListener("change", colour);
  for (const id of ["kind", "side"]) if (at(id)) at(id).addEventListener("change", filter);
})();
