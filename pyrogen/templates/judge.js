"use strict";
(() => {
  const element = (id) => document.getElementById(id);
  const { page, kind, pairs } = JSON.parse(element("data").textContent);
  const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie" };
  const choices = [];
  let saved = true;
  let address = null;

  const open = (shown) => {
    for (const id of ["start", "judging", "end"]) element(id).hidden = id !== shown;
  };

  const show = () => {
    const pair = pairs[choices.length];
    for (const side of ["left", "right"]) {
      if (kind === "text") element(side).textContent = pair[side];
      else element(side).src = pair[side];
    }
    element("count").textContent = `${choices.length + 1} of ${pairs.length}`;
    element("progress").value = choices.length;
    element("back").hidden = choices.length === 0;
    open("judging");
  };

  const finish = () => {
    if (kind === "sound") for (const side of ["left", "right"]) element(side).pause();
    const judge = element("name").value.trim();
    const answers = pairs.map(({ pair }, i) => ({ pair, choice: choices[i] }));
    const text = JSON.stringify({ page, judge, answers }, null, 1);
    if (address !== null) URL.revokeObjectURL(address);
    address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    element("save").href = address;
    element("save").download = `answers-${judge.replace(/[^\p{L}\p{N}]+/gu, "-") || page}.json`;
    element("answers").value = text;
    open("end");
  };

  const choose = (choice) => {
    if (element("judging").hidden) return;
    choices.push(choice);
    saved = false;
    if (choices.length === pairs.length) finish();
    else show();
  };

  const back = () => {
    if (choices.length === 0) return;
    choices.pop();
    show();
  };

  element("begin").addEventListener("click", show);
  for (const choice of ["left", "tie", "right"]) {
    element(`choose-${choice}`).addEventListener("click", () => choose(choice));
  }
  element("back").addEventListener("click", back);
  element("reopen").addEventListener("click", back);
  element("save").addEventListener("click", () => { saved = true; });
  // A key that is held down counts once; players of sound do not take the arrows for themselves.
  document.addEventListener("keydown", (event) => {
    if (element("judging").hidden || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.repeat && (event.key === "Enter" || event.key === " ")) event.preventDefault();
    if (!(event.key in keys) && event.key !== "Backspace") return;
    event.preventDefault();
    event.stopPropagation();
    if (event.repeat) return;
    if (event.key === "Backspace") back();
    else choose(keys[event.key]);
  }, true);
  window.addEventListener("beforeunload", (event) => {
    if (!saved) event.preventDefault();
  });
})();
