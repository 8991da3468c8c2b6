"use strict";
(() => {
  const data = JSON.parse(document.getElementById("latents-data").textContent);
  const choice = document.getElementById("input");
  const spaces = [...document.querySelectorAll(".space")];
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function draw() {
    const style = getComputedStyle(document.body);
    const layout = structuredClone(data.layout);
    layout.font = { color: style.color, family: style.fontFamily, size: 12 };
    layout.hoverlabel.bgcolor = style.getPropertyValue("--paper").trim();
    layout.hoverlabel.font = { color: style.color };
    layout.uirevision = "keep";
    const rule = style.getPropertyValue("--rule").trim();
    for (const axis of ["xaxis", "yaxis", "zaxis"]) Object.assign(layout.scene[axis], { gridcolor: rule, zerolinecolor: rule });
    for (const space of spaces) {
      const traces = structuredClone(data.inputs[Number(space.dataset.input ?? choice.value)][space.dataset.method] || []);
      for (const trace of traces) trace.text = data.texts[trace.meta];
      Plotly.react(space, traces, structuredClone(layout), { responsive: true, displayModeBar: false, scrollZoom: true });
    }
  }

  choice?.addEventListener("change", draw);
  dark.addEventListener("change", draw);
  draw();
})();
