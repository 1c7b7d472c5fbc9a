"use strict";
// What is folded away on the screen is open on paper.
const paper = matchMedia("print");
const unfold = () => { for (const part of document.querySelectorAll("details")) part.open = true; };
paper.addEventListener("change", (event) => { if (event.matches) unfold(); });
addEventListener("beforeprint", unfold);
document.documentElement.dataset.ready = "1";
