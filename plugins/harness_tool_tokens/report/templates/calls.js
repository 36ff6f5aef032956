"use strict";
const choices = ["section", "outcome", "right"].map(id => document.getElementById(id)).filter(Boolean);
const articles = [...document.querySelectorAll("article")];
function show() {
  const wanted = Object.fromEntries(choices.map(choice => [choice.id, choice.value]));
  for (const article of articles) {
    const { section, right, outcomes } = article.dataset;
    article.hidden = Boolean((wanted.section && wanted.section !== section) || (wanted.right && wanted.right !== right) ||
      (wanted.outcome && !outcomes.split(" ").includes(wanted.outcome)));
  }
  const count = articles.filter(article => !article.hidden).length;
  document.getElementById("count").textContent = `${count} of ${articles.length} shown`;
}
for (const choice of choices) choice.addEventListener("change", show);
document.querySelector(".toolbar").hidden = !articles.length;
show();
