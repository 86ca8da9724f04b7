"use strict";
// Shows a trial at the pointer, and marks it everywhere on the page. Without this script the page
// loses nothing else.
(() => {
  const { axes, trials } = JSON.parse(document.getElementById("trials").textContent);
  const tip = document.getElementById("tip");
  let marked = null;

  function mark(trial) {
    if (trial === marked) return;
    document.querySelectorAll(".hot").forEach((element) => element.classList.remove("hot"));
    marked = trial;
    if (trial === null) return;
    document.querySelectorAll(`[data-t="${trial}"]`).forEach((element) => element.classList.add("hot"));
  }

  // The evaluation of a learning curve that is nearest to the pointer.
  function evaluation(path, event, trial) {
    const svg = path.ownerSVGElement;
    if (!svg || svg.dataset.kind !== "curves" || path.tagName !== "path") return "";
    const matrix = svg.getScreenCTM();
    const x = (event.clientX - matrix.e) / matrix.a;
    const places = path.getAttribute("d").slice(1).split("L").map((point) => parseFloat(point));
    let nearest = 0;
    places.forEach((place, index) => {
      if (Math.abs(place - x) < Math.abs(places[nearest] - x)) nearest = index;
    });
    const [images, ...values] = trial.history[nearest];
    const axis = Number(svg.dataset.axis);
    return `\n${axes[axis]} ${values[axis]} at ${images.toLocaleString("en")} images`;
  }

  function show(event) {
    const element = event.target.closest ? event.target.closest("[data-t]") : null;
    const trial = element ? trials[element.dataset.t] : null;
    mark(element ? element.dataset.t : null);
    if (!trial || element.tagName === "TR") {
      tip.hidden = true;
      return;
    }
    tip.textContent = `${trial.name}\n${trial.text}${evaluation(element, event, trial)}`;
    tip.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = tip;
    const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - width - 8);
    const above = event.clientY + 16 + height > document.documentElement.clientHeight;
    tip.style.left = `${Math.max(left, 8)}px`;
    tip.style.top = `${above ? event.clientY - height - 12 : event.clientY + 16}px`;
  }

  document.addEventListener("pointermove", show, { passive: true });
  document.addEventListener("pointerdown", show, { passive: true });
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
})();
